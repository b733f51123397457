"""Tool calls in an answer: parsed while the answer is generated, and returned in pieces."""

from __future__ import annotations

import codecs
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Literal

from clearstory.generation.stream_decoder import overlap_length
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.tool_format import CALL_ID, ToolCallFormat


@dataclass(frozen=True, kw_only=True)
class ToolCallPiece:
    """A piece of a call. The first piece has the id and the name of the call, the others parts of its arguments.

    Args:
        index: number of the call in the answer.
        id: id of the call, in its first piece.
        name: name of the function, in its first piece.
        arguments: next part of the arguments, which are JSON.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(kw_only=True)
class ToolCall:
    """A call of a function, with its arguments as JSON, which are incomplete if the answer is truncated."""

    id: str
    name: str
    arguments: str = ""


@dataclass
class ToolCallParser:
    """Splits an answer into text and calls; tokens are pushed as they are generated.

    Args:
        tokenizer: the tokenizer of the model.
        format: the model's format of calls.
        calls: the calls so far.
        text: the text so far outside of calls.
    """

    tokenizer: Tokenizer
    format: ToolCallFormat
    calls: list[ToolCall] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.buffer = ""
        self.inside: Literal["text", "plain", "name", "arguments", "after"] = "text"
        self.arguments = JSONObjectEnd()
        id_pattern = "[a-zA-Z0-9]{9}"
        between = "" if self.format.between is None else self.format.between
        self.between = re.compile(id_pattern.join(map(re.escape, between.split(CALL_ID)))) if between else None

    def push(self, id: int) -> list[str | ToolCallPiece]:
        """The pieces of text and of calls that are final with this token."""
        name = self.tokenizer.display_token(id) if self.tokenizer.special_tokens_mask[id] else ""
        self.buffer += name if name in self.format.spelled else self.utf8.decode(self.tokenizer.token_bytes(id))
        return self.collect()

    def flush(self) -> list[str | ToolCallPiece]:
        """The text that was held back as a possible start of a call, at the end of the answer."""
        self.buffer += self.utf8.decode(b"", final=True)
        pieces = self.collect()
        if self.inside in ("text", "plain") and self.buffer:
            pieces.append(self.buffer)
            self.text += self.buffer
        self.buffer = ""
        return pieces

    def collect(self) -> list[str | ToolCallPiece]:
        """The complete pieces in the buffer, which are removed from it."""
        pieces: list[str | ToolCallPiece] = []
        while True:
            before = (self.inside, self.buffer)
            piece = self.next_piece()
            if piece:
                pieces.append(piece)
            if (self.inside, self.buffer) == before:
                return pieces

    def next_piece(self) -> str | ToolCallPiece | None:
        """The next piece of the buffer; None if only the parser's state changes, or nothing."""
        if self.inside == "name":
            return self.read_name()
        if self.inside == "arguments":
            taken = self.arguments.length(self.buffer)
            fragment, self.buffer = self.buffer[:taken], self.buffer[taken:]
            self.calls[-1].arguments += fragment
            if self.arguments.ended:
                self.inside = "after"
            return ToolCallPiece(index=len(self.calls) - 1, arguments=fragment) if fragment else None
        if self.inside == "after":
            if self.between is not None and (match := self.between.match(self.buffer)):
                self.buffer, self.inside = self.buffer[match.end() :], "name"
            return None
        return self.read_text()

    def read_text(self) -> str | None:
        """Text before a call, as far as it cannot be the start of one."""
        mark, begin = self.format.mark, self.format.begin
        if self.inside == "text" and self.buffer.startswith(begin):
            self.buffer, self.inside = self.buffer[len(begin) :], "name"
            return None
        if self.inside == "plain":
            return self.release(len(self.buffer))
        if not mark:  # calls begin an answer
            if not begin.startswith(self.buffer):
                self.inside = "plain"
            return None
        at = self.buffer.find(mark)
        if at == 0:
            return None if begin.startswith(self.buffer) else self.release(len(mark))
        return self.release(len(self.buffer) - overlap_length(self.buffer, mark) if at < 0 else at)

    def release(self, length: int) -> str:
        """Remove this many characters from the buffer and return them."""
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        self.text += taken
        return taken

    def read_name(self) -> ToolCallPiece | None:
        """The name of a function, once it is complete."""
        name, middle, rest = self.buffer.partition(self.format.middle)
        if not middle:
            return None
        self.buffer, self.inside, self.arguments = rest, "arguments", JSONObjectEnd()
        self.calls.append(ToolCall(id=self.new_id(), name=name))
        return ToolCallPiece(index=len(self.calls) - 1, id=self.calls[-1].id, name=name)

    def new_id(self) -> str:
        """A unique id, in the format of the model's template."""
        form = self.format
        if CALL_ID in form.end + (form.between or ""):
            return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))
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
