"""Calls with a tag for each argument, read while they are generated; their arguments are returned as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clearstory.serving.json_calls import random_id
from clearstory.serving.tagged_arguments import TaggedArgument, tagged_arguments
from clearstory.serving.tool_call_pieces import ToolCall, ToolCallPiece
from clearstory.text.tagged_calls import TaggedCallFormat

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]+")

State = Literal["name", "named", "key", "value", "valued", "after"]
"""What the next characters are, or what they follow."""


@dataclass
class TaggedCallReader:
    """Reads calls with a tag for each argument. A `CallReader`.

    Args:
        format: the model's format of calls.
        schemas: JSON schemas of the arguments by the names of the functions.
        calls: the calls so far.
    """

    format: TaggedCallFormat
    schemas: Mapping[str, Mapping[str, Any]]
    calls: list[ToolCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside: State = "name"
        self.arguments: dict[str, TaggedArgument] = {}
        self.key = ""
        form, length = self.format, len(self.format.close)
        self.after_name = {form.first: "key", form.none: "after", form.none_between: "name"}
        between = None if form.between is None else form.between[length:]
        self.after_value = {form.following[length:]: "key", form.last[length:]: "after", between: "name"}

    def read(self, text: str, *, final: bool = False) -> tuple[ToolCallPiece | None, str]:
        """The next piece of the text, if one is complete, and the rest of the text."""
        if self.inside == "name":
            return self.read_name(text)
        if self.inside == "named":
            return self.read_tag(text, self.after_name, final)
        if self.inside == "valued":
            return self.read_tag(text, self.after_value, final)
        if self.inside == "key":
            key, found, rest = text.partition(self.format.middle)
            if not found:
                return None, text
            self.key, self.inside = key, "value"
            return None, rest
        return self.read_value(text) if self.inside == "value" else (None, text)

    def read_name(self, text: str) -> tuple[ToolCallPiece | None, str]:
        """The name of a function, once it is complete, and the rest of the text."""
        match = FUNCTION_NAME.match(text)
        if match is None or match.end() == len(text):
            return None, text
        self.inside = "named"
        self.calls.append(ToolCall(id=random_id(), name=match[0]))
        schema = self.schemas.get(match[0])
        self.arguments = {} if schema is None else {each.name: each for each in tagged_arguments(schema, self.format)}
        piece = ToolCallPiece(index=len(self.calls) - 1, id=self.calls[-1].id, name=match[0])
        return piece, text[match.end() :]

    def read_tag(self, text: str, following: Mapping[Any, Any], final: bool) -> tuple[ToolCallPiece | None, str]:
        """The end of the arguments, or nothing before a further one, and the rest of the text."""
        tags = [tag for tag in following if tag is not None]
        if not final and any(tag.startswith(text) and len(tag) > len(text) for tag in tags):
            return None, text
        found = max((tag for tag in tags if text.startswith(tag)), key=len, default=None)
        if found is None:
            return None, text
        self.inside = following[found]
        rest = text[len(found) :]
        return (None if self.inside == "key" else self.add("}" if self.calls[-1].arguments else "{}")), rest

    def read_value(self, text: str) -> tuple[ToolCallPiece | None, str]:
        """An argument with its name, once it is complete, and the rest of the text."""
        close, argument = self.format.close, self.arguments.get(self.key)
        at = text.find(close)
        while at >= 0:
            value = json.dumps(text[:at], ensure_ascii=False) if argument is None else argument.read(text[:at])
            if value is not None:
                self.inside = "valued"
                start = ", " if self.calls[-1].arguments else "{"
                return self.add(f"{start}{json.dumps(self.key, ensure_ascii=False)}: {value}"), text[at + len(close) :]
            at = text.find(close, at + 1)  # inside a JSON string
        return None, text

    def add(self, arguments: str) -> ToolCallPiece:
        """A piece of the arguments of the last call."""
        self.calls[-1].arguments += arguments
        return ToolCallPiece(index=len(self.calls) - 1, arguments=arguments)
