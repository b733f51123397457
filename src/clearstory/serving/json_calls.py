"""Calls of a name and a JSON object, read while they are generated."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Literal

from clearstory.serving.tool_call_pieces import ToolCall, ToolCallPiece
from clearstory.text.tool_format import CALL_ID, ToolCallFormat


@dataclass
class JSONCallReader:
    """Reads calls in the format of a name and a JSON object. A `CallReader`.

    Args:
        format: the model's format of calls.
        calls: the calls so far.
    """

    format: ToolCallFormat
    calls: list[ToolCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside: Literal["name", "arguments", "after"] = "name"
        self.arguments = JSONObjectEnd()
        id_pattern = "[a-zA-Z0-9]{9}"
        between = "" if self.format.between is None else self.format.between
        self.between = re.compile(id_pattern.join(map(re.escape, between.split(CALL_ID)))) if between else None

    def read(self, text: str, *, final: bool = False) -> tuple[ToolCallPiece | None, str]:
        """The next piece of the text, if one is complete, and the rest of the text."""
        del final  # incomplete arguments are already returned
        if self.inside == "name":
            return self.read_name(text)
        if self.inside == "arguments":
            taken = self.arguments.length(text)
            fragment, rest = text[:taken], text[taken:]
            self.calls[-1].arguments += fragment
            if self.arguments.ended:
                self.inside = "after"
            return ToolCallPiece(index=len(self.calls) - 1, arguments=fragment) if fragment else None, rest
        if self.between is not None and (match := self.between.match(text)):
            self.inside = "name"
            return None, text[match.end() :]
        return None, text

    def read_name(self, text: str) -> tuple[ToolCallPiece | None, str]:
        """The name of a function, once it is complete, and the rest of the text."""
        name, middle, rest = text.partition(self.format.middle)
        if not middle:
            return None, text
        self.inside, self.arguments = "arguments", JSONObjectEnd()
        self.calls.append(ToolCall(id=self.new_id(), name=name))
        return ToolCallPiece(index=len(self.calls) - 1, id=self.calls[-1].id, name=name), rest

    def new_id(self) -> str:
        """A unique id, in the format of the model's template."""
        form = self.format
        if CALL_ID in form.end + (form.between or ""):
            return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))
        return random_id()


def random_id() -> str:
    """A unique id of a call."""
    return f"call_{secrets.token_hex(12)}"


@dataclass
class JSONObjectEnd:
    """Finds the end of a JSON object in a text that is received in pieces.

    >>> end = JSONObjectEnd()
    >>> end.length('{"a": "}'), end.length('"}, more'), end.ended
    (8, 2, True)
    """

    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    ended: bool = False

    def length(self, text: str) -> int:
        """Number of characters of the text that belong to the object."""
        for at, character in enumerate(text):
            if self.in_string:
                self.in_string = character != '"' or self.escaped
                self.escaped = character == "\\" and not self.escaped
            elif character == '"':
                self.in_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth == 0:
                    self.ended = True
                    return at + 1
        return len(text)
