"""Tools: functions that a model may call, and the grammar of calls in the format of its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clearstory.errors import BadInput
from clearstory.generation.grammar import Grammar, json_rule
from clearstory.generation.json_schema import check_follows, check_schema
from clearstory.serving.tagged_arguments import tagged_arguments
from clearstory.serving.tagged_grammar import tagged_rules
from clearstory.serving.tool_call_pieces import ToolCall
from clearstory.text.tagged_calls import TaggedCallFormat
from clearstory.text.tool_format import CALL_ID, CallFormat, ToolCallFormat

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema of the arguments of a function without parameters."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call.

    Args:
        name: its name.
        description: what it does; part of the prompt.
        parameters: JSON schema of its arguments, an object; None for a function without parameters.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def schema(self) -> Mapping[str, Any]:
        """JSON schema of the arguments: always an object."""
        return {"type": "object", **self.parameters} if self.parameters else NO_PARAMETERS

    def check(self, form: CallFormat | None = None) -> None:
        """Raises JSONSchemaError or BadInput for parameters that are not supported, by a format of calls if given."""
        check_schema(self.schema)
        if self.schema["type"] != "object":
            raise BadInput(
                f"the parameters of the function '{self.name}' are not an object; use a schema of type object"
            )
        Grammar.of_json_schema(self.schema)
        if isinstance(form, TaggedCallFormat):
            tagged_arguments(self.schema, form)

    def template_value(self) -> dict[str, Any]:
        """The function in the format of chat templates."""
        described = {} if self.description is None else {"description": self.description}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": dict(self.schema)}}


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """The functions that an answer may call.

    Args:
        tools: the functions in the prompt.
        callable: those that it may call.
        required: whether the answer must call one; otherwise it may be text.
        parallel: whether it may call several.
        format: the model's format of calls.
        answer: JSON schema of an answer without calls; None for any text.
    """

    tools: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    required: bool
    parallel: bool
    format: CallFormat
    answer: Mapping[str, Any] | None = None

    def check(self, calls: Sequence[ToolCall]) -> None:
        """Raises GrammarViolation if the arguments of a complete call are not valid for their schema."""
        for call in calls:
            check_follows(call.arguments, self.schemas[call.name])

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """JSON schemas of the arguments by the names of the functions that may be called."""
        return {tool.name: tool.schema for tool in self.callable}

    def grammar(self) -> Grammar:
        """The grammar of the answer: text, calls, or text and then calls. Raises JSONSchemaError for its schema."""
        form = self.format
        rules = (
            tagged_rules(self.schemas, form, self.parallel)
            if isinstance(form, TaggedCallFormat)
            else json_rules(self.schemas, form, self.parallel)
        )
        return Grammar.of_lark("\n".join([*self.start_rules(), *rules]), form.spelled)

    def start_rules(self) -> list[str]:
        """The first rules of the grammar."""
        begin, mark = self.format.begin, self.format.mark
        if self.required:
            return [f"start: {literal(begin)} calls"]
        if self.answer is not None:
            Grammar.of_json_schema(self.answer)
            return [f"start: answer | {literal(begin)} calls", f"answer: {json_rule(self.answer)}"]
        if not mark:  # text is what does not begin as a call does
            first = regex_class(begin.lstrip()[:1])
            return [f"start: TEXT | {literal(begin)} calls", rf"TEXT: /(\s*[^\s{first}](.|\n)*)?/"]
        marked = json.dumps(mark)
        return [
            f"start: TEXT | head {literal(begin[len(mark) :])} calls",
            rf"TEXT: /(.|\n)*/ & ~(/(.|\n)*/ {marked} /(.|\n)*/)",
            rf"head[lazy]: /(.|\n)*/ {marked}",
        ]


def json_rules(schemas: Mapping[str, Mapping[str, Any]], form: ToolCallFormat, parallel: bool) -> list[str]:
    """The rules of `calls`, of a name and a JSON object each."""
    more = f"({literal(form.between)} call)* " if parallel and form.between is not None else ""
    return [
        f"calls: call {more}{literal(form.end)}",
        f"call: {' | '.join(f'call{number}' for number in range(len(schemas)))}",
        *(
            f"call{number}: {literal(name + form.middle)} {json_rule(schema)}"
            for number, (name, schema) in enumerate(schemas.items())
        ),
    ]


def literal(text: str) -> str:
    """A text as an expression of a grammar, with a pattern for ids; empty for an empty text."""
    return " /[a-zA-Z0-9]{9}/ ".join(json.dumps(part, ensure_ascii=False) for part in text.split(CALL_ID) if part)


def regex_class(character: str) -> str:
    """A character inside a character class of a regular expression."""
    return f"\\{character}" if character in r"\[]^-/{}" else character


def check_names(tools: Sequence[Tool]) -> None:
    """Raises BadInput for two functions with the same name."""
    names = [tool.name for tool in tools]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two tools have the name '{repeated}'; names must be unique")
