"""Fields of a chat request that describe tools to the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clearstory.server.errors import RequestError
from clearstory.server.fields import request_field
from clearstory.server.grammar_fields import GrammarFields, naming_schema, refused_stop
from clearstory.server.text_requests import naming
from clearstory.serving.tools import Tool, ToolUse, check_names
from clearstory.text.tool_format import find_tool_format

if TYPE_CHECKING:
    from clearstory.serving.served_model import ServedModel

MAX_TOOLS = 128
"""Maximum number of tools of a request, as in OpenAI's API."""


@dataclass(frozen=True, kw_only=True)
class FunctionFields:
    """A function that the model may call."""

    name: str = request_field("Name of the function.", min_length=1, max_length=64)
    description: str | None = request_field("What the function does; part of the prompt.", None)
    parameters: dict[str, Any] | None = request_field("JSON schema of the arguments; null: no arguments.", None)
    strict: bool | None = request_field("Has no effect: arguments are always valid for the schema.", None)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", self.name):
            raise RequestError(
                f"name is '{self.name}'; it must consist of letters, digits, _ and -",
                param="name",
                code="invalid_value",
            )


@dataclass(frozen=True, kw_only=True)
class ToolDefinition:
    """A tool."""

    type: Literal["function"] = request_field("Type of the tool.")
    function: FunctionFields = request_field("The function.")


@dataclass(frozen=True, kw_only=True)
class FunctionName:
    """The name of a function."""

    name: str = request_field("Name of the function.", max_length=64)


@dataclass(frozen=True, kw_only=True)
class NamedToolChoice:
    """The function that must be called."""

    type: Literal["function"] = request_field("Type of the tool.")
    function: FunctionName = request_field("The function.")


@dataclass(frozen=True, kw_only=True)
class ToolFields(GrammarFields):
    """Fields of a text, its constraint and the tools that it may call."""

    tools: tuple[ToolDefinition, ...] | None = request_field(
        "Functions that the model may call; its chat template must support tools.", None, max_items=MAX_TOOLS
    )
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = request_field(
        "none: no calls; auto (default): the model decides; required: at least one call; or the function to call.",
        None,
    )
    parallel_tool_calls: bool | None = request_field(
        "Whether an answer may contain several calls; default: true.", None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tools and not (self.tool_choice is None or self.tool_choice in ("none", "auto")):
            raise RequestError(
                "tool_choice needs tools; send both",
                param="tool_choice",
                code="invalid_value",
            )
        if not self.uses_tools:
            return
        names = [tool.function.name for tool in self.tools or ()]
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise RequestError(
                f"tool_choice.function.name is '{self.tool_choice.function.name}', which is not one of the tools "
                f"({', '.join(names)}); name one of them",
                param="tool_choice.function.name",
                code="invalid_value",
            )
        for name in ("regex", "grammar"):
            if getattr(self, name) is not None:
                raise RequestError(
                    f'{name} and tools are both given; send "tool_choice": "none" or omit tools',
                    param=name,
                    code="invalid_value",
                )
        if self.stop_strings:
            raise refused_stop("tools")

    @property
    def uses_tools(self) -> bool:
        """Whether the answer may call tools. With tool_choice none, they are not part of the prompt."""
        return bool(self.tools) and self.tool_choice != "none"

    def tool_use(self, served: ServedModel) -> ToolUse | None:
        """The functions that the answer may call, or None.

        Raises RequestError for a model that does not support tools, and for an invalid schema, whose path it names.
        """
        if not self.uses_tools or self.tools is None:
            return None
        with naming("tools"):
            form = find_tool_format(served.tokenizer)
            found = [Tool(**fields_of(each.function)) for each in self.tools]
            for number, tool in enumerate(found):
                with naming_schema(f"tools[{number}].function.parameters"):
                    tool.check(form)
            check_names(found)
        choice = self.tool_choice
        if self.schema is not None and choice in (None, "auto") and not form.mark:
            raise RequestError(
                "response_format requires JSON, but this model's tool calls also start like JSON; send tool_choice, or "
                "omit response_format or tools",
                param="response_format",
                code="unsupported_by_model",
            )
        named = choice.function.name if isinstance(choice, NamedToolChoice) else None
        with naming_schema("response_format.json_schema.schema"):
            use = ToolUse(
                tools=tuple(found),
                callable=tuple(tool for tool in found if named in (None, tool.name)),
                required=choice == "required" or named is not None,
                parallel=self.parallel_tool_calls is not False and named is None,
                format=form,
                answer=self.schema,
            )
            use.grammar()
        return use


def fields_of(function: FunctionFields) -> dict[str, Any]:
    """Fields of a function as keyword arguments of Tool."""
    return {"name": function.name, "description": function.description, "parameters": function.parameters}
