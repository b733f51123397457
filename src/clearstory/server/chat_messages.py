"""Messages of a chat request: their forms in OpenAI's API, and as a chat template reads them."""

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
    """A part of a message that is text."""

    type: Literal["text"] = request_field("The type of the part.")
    text: str = request_field("The text.")
    image_url: Any = refused_field(TEXT_ONLY)
    input_audio: Any = refused_field(TEXT_ONLY)
    file: Any = refused_field(TEXT_ONLY)
    prompt_cache_breakpoint: Any = refused_field("prompts that begin alike are found without it")


@dataclass(frozen=True, kw_only=True)
class RefusalPart:
    """A part of a message in which the assistant refused to answer."""

    type: Literal["refusal"] = request_field("The type of the part.")
    refusal: str = request_field("What the assistant said.")


Content = str | tuple[TextPart, ...]
"""The text of a message, whole or in parts."""


@dataclass(frozen=True, kw_only=True)
class SystemMessage:
    """Instructions for the whole conversation."""

    role: Literal["system", "developer"] = request_field("Who speaks.")
    content: Content = request_field("The text.")
    name: str | None = request_field("Name of the speaker, for templates that print it.", None, max_length=64)


@dataclass(frozen=True, kw_only=True)
class UserMessage:
    """A message of the user."""

    role: Literal["user"] = request_field("Who speaks.")
    content: Content = request_field("The text.")
    name: str | None = request_field("Name of the speaker, for templates that print it.", None, max_length=64)


@dataclass(frozen=True, kw_only=True)
class CalledFunction:
    """A function with the arguments of a call."""

    name: str = request_field("Name of the function.", max_length=64)
    arguments: str = request_field("Its arguments, as JSON.")


@dataclass(frozen=True, kw_only=True)
class MessageToolCall:
    """A call of a tool by the assistant."""

    id: str = request_field("Id of the call.", max_length=256)
    type: Literal["function"] = request_field("The type of the tool.", "function")
    function: CalledFunction = request_field("The function and its arguments.")
    index: int | None = request_field("Number of the call, as streams have it.", None, minimum=0)


@dataclass(frozen=True, kw_only=True)
class AssistantMessage:
    """An answer of the model, or one that it should take for its own."""

    role: Literal["assistant"] = request_field("Who speaks.")
    content: str | tuple[TextPart | RefusalPart, ...] | None = request_field("The text.", None)
    name: str | None = request_field("Name of the speaker, for templates that print it.", None, max_length=64)
    refusal: str | None = request_field("What the assistant said when it refused to answer.", None)
    tool_calls: tuple[MessageToolCall, ...] | None = request_field("Calls of tools.", None, max_items=128)
    annotations: tuple[Any, ...] | None = refused_field(TEXT_ONLY, ([],))
    audio: Any = refused_field(TEXT_ONLY)
    function_call: Any = refused_field("it is deprecated; send tool_calls")

    def __post_init__(self) -> None:
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise RequestError(
                "content is missing; a message of the assistant has content, a refusal or tool_calls",
                param="content",
                code="missing_required_parameter",
            )


@dataclass(frozen=True, kw_only=True)
class ToolMessage:
    """The result of a call."""

    role: Literal["tool"] = request_field("Who speaks.")
    content: Content = request_field("The result, as text.")
    tool_call_id: str = request_field("Id of the call.", max_length=256)


ChatMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""A message in any form."""


def template_messages(messages: Sequence[ChatMessage], template: str) -> list[dict[str, Any]]:
    """Messages as a chat template reads them: content as one text, arguments of calls as objects.

    The role developer is that of the system for a template that does not know it.
    """
    return [template_message(message, template) for message in messages]


def template_message(message: ChatMessage, template: str) -> dict[str, Any]:
    """One message as a chat template reads it."""
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
                "function": {"name": call.function.name, "arguments": parsed_arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    return found


def joined_text(message: ChatMessage) -> str:
    """The content of a message as one text, its parts joined without anything between them."""
    content = message.content
    if content is None:
        return message.refusal or "" if isinstance(message, AssistantMessage) else ""
    if isinstance(content, str):
        return content
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def parsed_arguments(arguments: str) -> Any:
    """Arguments of a call as an object, which templates print in their own way; as they are where they are none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
