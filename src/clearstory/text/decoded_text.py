"""Decoded text: the text of token ids, and the characters that each of them stands for."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from clearstory.text.encoding import EncodedText, TokenOrigins
from clearstory.text.tokenizers import Tokenizer

WINDOW = 8
"""Tokens decoded again before each one: how a word is joined to the previous one may depend on them."""


def decode_with_spans(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, EncodedText]:
    """The text of ids, and for each its characters in it; None for a special token, which is no part of the text.

    Bytes that are not UTF-8 are U+FFFD. A token that ends inside a character stands for the whole character, as does
    the token that continues it. Raises VocabularyMismatch for an id outside the vocabulary.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> decode_with_spans(train_tokenizer("bytes", []), [72, *"é".encode()])
    ('Hé', EncodedText(ids=(72, 195, 169), special=(False, False, False), spans=((0, 1), (1, 2), (1, 2))))
    """
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    spans: list[tuple[int, int] | None] = []
    for at in range(len(ids)):
        start, new_bytes = len(text), added_bytes(tokenizer, ids, at)
        text += utf8.decode(new_bytes)
        pending = bool(utf8.getstate()[0])
        spans.append((start, len(text) + pending) if new_bytes else None)
    text += utf8.decode(b"", final=True)
    return text, EncodedText(ids, TokenOrigins(tuple(span is None for span in spans), tuple(spans)))


def added_bytes(tokenizer: Tokenizer, ids: Sequence[int], at: int) -> bytes:
    """The bytes that the token at a position adds to the text of those before it."""
    first = max(0, at - WINDOW)
    before = tokenizer.decode_bytes(ids[first:at], begins=first == 0)
    after = tokenizer.decode_bytes(ids[first : at + 1], begins=first == 0)
    return after[len(before) :] if after.startswith(before) else tokenizer.decode_bytes(ids[at : at + 1])
