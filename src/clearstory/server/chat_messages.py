"""Messages of a chat request, in the format of OpenAI's API and in that of chat templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clearstory.server.errors import RequestError
from clearstory.server.fields import refused_field, request_field

TEXT_ONLY = "only text is supported"


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """A text part of a message."""

    type: Literal["text"] = request_field("Type of the part.")
    text: str = request_field("The text.")
    image_url: Any = refused_field(TEXT_ONLY)
    input_audio: Any = refused_field(TEXT_ONLY)
    file: Any = refused_field(TEXT_ONLY)
    prompt_cache_breakpoint: Any = refused_field("common prefixes of prompts are found without it")


@dataclass(frozen=True, kw_only=True)
class RefusalPart:
    """A part of a message that is the assistant's refusal to answer."""

    type: Literal["refusal"] = request_field("Type of the part.")
    refusal: str = request_field("Text of the refusal.")


Content = str | tuple[TextPart, ...]
"""The text of a message, whole or in parts."""


@dataclass(frozen=True, kw_only=True)
class SystemMessage:
    """Instructions for the whole conversation."""

    role: Literal["system", "developer"] = request_field("Role of the author.")
    content: Content = request_field("The text.")
    name: str | None = request_field("Name of the author, for templates that use it.", None, max_length=64)


@dataclass(frozen=True, kw_only=True)
class UserMessage:
    """A message of the user."""

    role: Literal["user"] = request_field("Role of the author.")
    content: Content = request_field("The text.")
    name: str | None = request_field("Name of the author, for templates that use it.", None, max_length=64)


@dataclass(frozen=True, kw_only=True)
class CalledFunction:
    """A function with the arguments of a call."""

    name: str = request_field("Name of the function.", max_length=64)
    arguments: str = request_field("Arguments of the call, as JSON.")


@dataclass(frozen=True, kw_only=True)
class MessageToolCall:
    """A call of a tool by the assistant."""

    id: str = request_field("Id of the call.", max_length=256)
    type: Literal["function"] = request_field("Type of the tool.", "function")
    function: CalledFunction = request_field("The function and its arguments.")
    index: int | None = request_field("Index of the call, as in streamed responses.", None, minimum=0)


@dataclass(frozen=True, kw_only=True)
class AssistantMessage:
    """An answer of the model, or one that is presented to it as its own."""

    role: Literal["assistant"] = request_field("Role of the author.")
    content: str | tuple[TextPart | RefusalPart, ...] | None = request_field("The text.", None)
    name: str | None = request_field("Name of the author, for templates that use it.", None, max_length=64)
    refusal: str | None = request_field("Text with which the assistant refused to answer.", None)
    tool_calls: tuple[MessageToolCall, ...] | None = request_field("Calls of tools.", None, max_items=128)
    annotations: tuple[Any, ...] | None = refused_field(TEXT_ONLY, ([],))
    audio: Any = refused_field(TEXT_ONLY)
    function_call: Any = refused_field("it is deprecated; send tool_calls")

    def __post_init__(self) -> None:
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise RequestError(
                "content is missing; an assistant message needs content, refusal or tool_calls",
                param="content",
                code="missing_required_parameter",
            )


@dataclass(frozen=True, kw_only=True)
class ToolMessage:
    """The result of a call."""

    role: Literal["tool"] = request_field("Role of the author.")
    content: Content = request_field("The result, as text.")
    tool_call_id: str = request_field("Id of the call.", max_length=256)


ChatMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""A message of any role."""


def template_messages(
    messages: Sequence[ChatMessage], template: str, *, text_arguments: bool = False
) -> list[dict[str, Any]]:
    """Messages in the format of chat templates: content as one text; arguments of calls as objects, or with
    `text_arguments` as JSON text.

    The role developer is replaced by system for templates that do not support it.
    """
    return [template_message(message, template, text_arguments) for message in messages]


def calls_tools(messages: Sequence[ChatMessage]) -> bool:
    """Whether a message has calls of tools."""
    return any(isinstance(message, AssistantMessage) and message.tool_calls for message in messages)


def template_message(message: ChatMessage, template: str, text_arguments: bool) -> dict[str, Any]:
    """One message in the format of chat templates."""
    role = "system" if message.role == "developer" and "developer" not in template else message.role
    found: dict[str, Any] = {"role": role, "content": joined_text(message)}
    if isinstance(message, ToolMessage):
        return {**found, "tool_call_id": message.tool_call_id}
    if message.name is not None:
        found["name"] = message.name
    if isinstance(message, AssistantMessage) and message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.arguments
                    if text_arguments
                    else parsed_arguments(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    return found


def joined_text(message: ChatMessage) -> str:
    """The content of a message as one text: its parts, concatenated without separators."""
    content = message.content
    if content is None:
        return message.refusal or "" if isinstance(message, AssistantMessage) else ""
    if isinstance(content, str):
        return content
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def parsed_arguments(arguments: str) -> Any:
    """Arguments of a call as an object, which templates format themselves; unchanged if they are not a JSON object."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
