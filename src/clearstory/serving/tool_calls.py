"""Tool calls in an answer: parsed while the answer is generated, and returned in pieces."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clearstory.generation.stream_decoder import overlap_length
from clearstory.serving.json_calls import JSONCallReader
from clearstory.serving.tagged_call_reader import TaggedCallReader
from clearstory.serving.tool_call_pieces import CallReader, ToolCall, ToolCallPiece
from clearstory.text.tagged_calls import TaggedCallFormat
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.tool_format import CallFormat


@dataclass
class ToolCallParser:
    """Splits an answer into text and calls; tokens are pushed as they are generated.

    Args:
        tokenizer: the tokenizer of the model.
        format: the model's format of calls.
        schemas: JSON schemas of the arguments by the names of the functions.
        text: the text so far outside of calls.
    """

    tokenizer: Tokenizer
    format: CallFormat
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.buffer = ""
        self.inside: Literal["text", "plain", "calls"] = "text"
        self.reader: CallReader = (
            TaggedCallReader(self.format, self.schemas)
            if isinstance(self.format, TaggedCallFormat)
            else JSONCallReader(self.format)
        )

    @property
    def calls(self) -> list[ToolCall]:
        """The calls so far."""
        return self.reader.calls

    def push(self, id: int) -> list[str | ToolCallPiece]:
        """The pieces of text and of calls that are final with this token."""
        name = self.tokenizer.display_token(id) if self.tokenizer.special_tokens_mask[id] else ""
        self.buffer += name if name in self.format.spelled else self.utf8.decode(self.tokenizer.token_bytes(id))
        return self.collect()

    def flush(self) -> list[str | ToolCallPiece]:
        """The text that was held back as a possible start of a call, at the end of the answer."""
        self.buffer += self.utf8.decode(b"", final=True)
        pieces = self.collect(final=True)
        if self.inside in ("text", "plain") and self.buffer:
            pieces.append(self.buffer)
            self.text += self.buffer
        self.buffer = ""
        return pieces

    def collect(self, *, final: bool = False) -> list[str | ToolCallPiece]:
        """The complete pieces in the buffer, which are removed from it."""
        pieces: list[str | ToolCallPiece] = []
        while True:
            before = (self.inside, self.buffer)
            piece = self.next_piece(final)
            if piece:
                pieces.append(piece)
            if (self.inside, self.buffer) == before:
                return pieces

    def next_piece(self, final: bool) -> str | ToolCallPiece | None:
        """The next piece of the buffer; None if only the parser's state changes, or nothing."""
        if self.inside == "calls":
            piece, self.buffer = self.reader.read(self.buffer, final=final)
            return piece
        return self.read_text()

    def read_text(self) -> str | None:
        """Text before a call, as far as it cannot be the start of one."""
        mark, begin = self.format.mark, self.format.begin
        if self.inside == "text" and self.buffer.startswith(begin):
            self.buffer, self.inside = self.buffer[len(begin) :], "calls"
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
