"""Tool calls in answers, in the formats of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clearstory.serving.tool_call_pieces import ToolCallPiece
from clearstory.serving.tool_calls import ToolCallParser

if TYPE_CHECKING:
    from clearstory.server.generated_text import CollectedText
    from clearstory.serving.tools import ToolUse
    from clearstory.text.tokenizers import Tokenizer


def parse_answer(tokenizer: Tokenizer, use: ToolUse, answer: CollectedText) -> ToolCallParser:
    """Text and calls of a complete answer. Raises GrammarViolation for a call that is not valid for its schema."""
    parser = ToolCallParser(tokenizer, use.format, use.schemas)
    for token, _ in answer.tokens:
        parser.push(token.id)
    parser.flush()
    check_calls(parser, use, answer)
    return parser


def check_calls(parser: ToolCallParser, use: ToolUse, answer: CollectedText) -> None:
    """Raises GrammarViolation if a complete answer has a call that is not valid for its schema."""
    if answer.finish == "stop":
        use.check(parser.calls)


def message_fields(parser: ToolCallParser) -> dict[str, Any]:
    """Content and tool_calls of a message."""
    if not parser.calls:
        return {"content": parser.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in parser.calls
    ]
    return {"content": parser.text or None, "tool_calls": calls}


def deltas(pieces: Sequence[str | ToolCallPiece]) -> list[dict[str, Any]]:
    """Pieces of an answer as deltas of a stream."""
    return [{"content": piece} if isinstance(piece, str) else {"tool_calls": [call_delta(piece)]} for piece in pieces]


def call_delta(piece: ToolCallPiece) -> dict[str, Any]:
    """A piece of a call, as an item of tool_calls of a delta."""
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def finish_reason(parser: ToolCallParser, answer: CollectedText) -> str | None:
    """Finish reason of an answer: tool_calls if it ended with a call."""
    return "tool_calls" if parser.calls and answer.finish == "stop" else answer.finish
