"""Bytes of each token, for all conventions in which tokenizers store tokens.

byte-level      GPT-2: each byte is a printable character, a space is Ġ
sentencepiece   Llama, T5: a space is ▁, a byte token is <0xE3>
wordpiece       BERT: a token inside a word begins with ##
plain           characters and words: the token is the text
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Style = Literal["byte-level", "sentencepiece", "wordpiece", "plain"]

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

HIDDEN_MARK = "\ue000"
"""A private character in the names of pieces that no text may match, such as those of a target language alone."""

VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character of each byte: the byte itself if printable, else the next code point from U+0100.

    >>> alphabet = byte_alphabet()
    >>> alphabet["A"], alphabet["Ġ"], len(alphabet)
    (65, 32, 256)
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


BYTE_ALPHABET = byte_alphabet()


def token_style(parts: Mapping[str, Any]) -> Style:
    """The convention in which a tokenizer.json stores its tokens."""
    kinds = _kinds(parts.get("pre_tokenizer")) | _kinds(parts.get("decoder"))
    if "ByteLevel" in kinds:
        return "byte-level"
    if kinds & {"Metaspace", "ByteFallback"} or parts["model"].get("byte_fallback"):
        return "sentencepiece"
    if "WordPiece" in kinds or parts["model"].get("type") == "WordPiece":
        # The WordPiece decoder also joins words, whose tokens have no prefix.
        return "plain" if parts["model"].get("type") == "WordLevel" else "wordpiece"
    return "plain"


def bytes_of_token(piece: str, style: Style) -> bytes:
    """Bytes of text of one token. White space that the tokenizer drops is not counted.

    >>> bytes_of_token("Ġthe", "byte-level"), bytes_of_token("<0xE3>", "sentencepiece")
    (b' the', b'\\xe3')
    >>> bytes_of_token("##ing", "wordpiece")
    b'ing'
    """
    if style == "byte-level":
        try:
            return bytes(map(BYTE_ALPHABET.__getitem__, piece))
        except KeyError:  # not of the alphabet: an added token
            return piece.encode()
    if style == "sentencepiece":
        byte = BYTE_PIECE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").replace(HIDDEN_MARK, "").encode()
    if style == "wordpiece":
        return piece.removeprefix("##").encode()
    return piece.encode()


def printable_token(text: bytes) -> str:
    """Printable form of bytes: ␣ for a space, ↵ for a line feed, ⇥ for a tab, <0xE3> for a byte that is not valid
    UTF-8.

    >>> printable_token(" the\\n".encode() + b"\\xe3")
    '␣the↵<0xE3>'
    """
    shown = text.decode("utf-8", "surrogateescape").translate(VISIBLE)
    return "".join(_show(character) for character in shown)


def _show(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not part of valid UTF-8
        return f"<0x{code - 0xDC00:02X}>"
    return f"<0x{code:02X}>" if code < 0x20 or code == 0x7F else character


def _kinds(part: Any) -> set[str]:
    """The "type" values of a tokenizer.json component and of all components inside it."""
    if isinstance(part, Mapping):
        own = {part["type"]} if isinstance(part.get("type"), str) else set()
        return own.union(*map(_kinds, part.values()))
    if isinstance(part, list):
        return set().union(*map(_kinds, part))
    return set()
