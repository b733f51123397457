"""Encoding of texts to arrays of ids: for each kind of tokenizer, the fastest method that gives the library's ids.

characters, bytes       a table of the id of each character, or byte
words, wordpunct        Python's splitting and a dict, in parts of a text that end with a line
BPE, WordPiece, Unigram by segments where they are independent (see `segment_encoding`)
others                  the library
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clearstory.text.segment_encoding import CHUNK, Ids, chunks
from clearstory.text.token_bytes import BYTE_ALPHABET

LINE_CUT = re.compile(r"\n")
"""Boundaries between words and punctuation marks."""

ArrayEncoder = Callable[[Sequence[str]], list[Ids]]


def by_line(encode: Callable[[str], list[int]], dtype: np.dtype[np.unsignedinteger[Any]]) -> ArrayEncoder:
    """An encoder of texts that `encode` encodes line by line."""

    def encode_texts(texts: Sequence[str]) -> list[Ids]:
        parts = ([np.array(encode(part), dtype) for part in chunks(text, LINE_CUT)] for text in texts)
        return [each[0] if len(each) == 1 else np.concatenate(each) for each in parts]

    return encode_texts


def character_encoder(parts: Mapping[str, Any], dtype: np.dtype[np.unsignedinteger[Any]]) -> ArrayEncoder | None:
    """An encoder for a tokenizer.json that makes one token of each character or byte; None for any other."""
    model: Mapping[str, Any] = parts["model"]
    settings = ("merges", "dropout", "fuse_unk", "byte_fallback", "ignore_merges", "continuing_subword_prefix")
    if any(model.get(name) for name in (*settings, "end_of_word_suffix")) or model.get("type", "BPE") != "BPE":
        return None
    if parts.get("normalizer") is not None or not isinstance(model.get("vocab"), Mapping):
        return None
    if any(not token.get("special") for token in parts.get("added_tokens") or ()):
        return None
    ids: Mapping[str, int] = model["vocab"]
    pre_tokenizer = parts.get("pre_tokenizer")
    if pre_tokenizer is None:
        return encoder_by_code_point(ids, ids.get(model.get("unk_token") or ""), dtype)
    if pre_tokenizer.get("type") != "ByteLevel" or pre_tokenizer.get("add_prefix_space", True):
        return None
    if not BYTE_ALPHABET.keys() <= ids.keys():
        return None
    table = np.zeros(256, dtype)
    for character, byte in BYTE_ALPHABET.items():
        table[byte] = ids[character]
    return by_slice(lambda text: table[np.frombuffer(text.encode(), np.uint8)])


def encoder_by_code_point(
    ids: Mapping[str, int], unknown: int | None, dtype: np.dtype[np.unsignedinteger[Any]]
) -> ArrayEncoder | None:
    """An encoder that gives each character its id, or `unknown`."""
    if unknown is None:
        return None
    known = {ord(character): id for character, id in ids.items() if len(character) == 1}
    table = np.full(max(known, default=0) + 2, unknown, dtype)
    table[list(known)] = list(known.values())

    def encode(text: str) -> Ids:
        code_points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        found: Ids = table[np.minimum(code_points, len(table) - 1)]
        return found

    return by_slice(encode)


def by_slice(encode: Callable[[str], Ids]) -> ArrayEncoder:
    """An encoder of texts of which `encode` encodes CHUNK characters at a time."""

    def encode_text(text: str) -> Ids:
        if len(text) <= CHUNK:
            return encode(text)
        return np.concatenate([encode(text[start : start + CHUNK]) for start in range(0, len(text), CHUNK)])

    return lambda texts: [encode_text(text) for text in texts]
