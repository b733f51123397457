"""Calls of functions in an answer, whole and in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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


class CallReader(Protocol):
    """Reads calls in one format, from the name of the first function on.

    Args:
        calls: the calls so far.
    """

    calls: list[ToolCall]

    def read(self, text: str, *, final: bool = False) -> tuple[ToolCallPiece | None, str]:
        """The next piece of the text, if one is complete, and the rest of the text. `final`: no text will follow."""
