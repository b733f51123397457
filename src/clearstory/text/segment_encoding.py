"""Encoding by segments: a text is split where every pre-tokenizer splits, and each distinct segment is encoded once.

The pre-tokenizers of published byte-level BPE tokenizers and BERT's cut between a letter, digit or punctuation mark and
the white space that follows, and nothing before such a cut depends on what follows it, or the other way round:

    He said, "don't"⏎⏎  He left.     →     He| said|,| "don't"|⏎⏎  He| left|.

So the ids of the text are those of its segments, joined. A few regular expressions find the segments, and the library
encodes those that are new. Twenty megabytes of English have 4 million segments, of which 85,000 are different.

Segments end only between ASCII characters, or before ASCII white space: which other characters are letters depends on
the version of Unicode, and a combining mark belongs to the character before it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.text.pretokenizers import (
    BYTE_LEVEL,
    BYTE_LEVEL_NO_REGEX,
    CL100K,
    GPT4O,
    LLAMA3,
    PRETOKENIZERS,
    QWEN2,
    canonical,
    is_equivalent,
    sequence,
    split_step,
)

Ids = npt.NDArray[np.unsignedinteger[Any]]  # uint16 or uint32

SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space as Unicode and the library's regular expressions define it; Python's \\s has four more characters."""

RARE_SPACE = SPACE.replace(r"\t-\r ", r"\x0b\x0c")
"""White space at which no segment ends: BERT's normalizer removes some of it without a trace."""

MARK = r"!-/:-@\[-`{-~"
"""ASCII punctuation."""

MARK_NOT_APOSTROPHE = r"!-&(-/:-@\[-`{-~"


def segment_pattern(joined_line_ends: bool) -> re.Pattern[str]:
    """The regular expression that matches one segment after the other, without gaps.

    `joined_line_ends`: line ends are part of the pre-token of the punctuation mark before them, as in Llama 3's
    expression, so that no segment ends between them.
    """
    # A word, after at most one punctuation mark; a contraction belongs to it, since some expressions join them.
    word = rf"[{SPACE}]*+[{MARK}]?[A-Za-z0-9]++(?:'[A-Za-z]++)?(?=[ \t\r\n{MARK_NOT_APOSTROPHE}]|\Z)"
    after_marks, joined = (r" \t", r"(?<![A-Za-z0-9])[\r\n]|") if joined_line_ends else (r" \t\r\n", "")
    marks = rf"[{MARK}]++(?=[{after_marks}])"
    # All others: up to white space before which the pre-tokenizer cuts, and which is not lost.
    other = rf"[{SPACE}]*+[^{SPACE}]++(?:(?:{joined}[{RARE_SPACE}])[{SPACE}]*+[^{SPACE}]*+)*"
    return re.compile(rf"{word}|{marks}|{other}|[{SPACE}]++")


SEPARATE_LINE_ENDS, JOINED_LINE_ENDS = segment_pattern(False), segment_pattern(True)

CUT = re.compile(r"(?<=[A-Za-z0-9])[ \t\r\n]")
"""White space before which every text can be split, for any pre-tokenizer."""

CHUNK = 1 << 17
"""Number of characters whose segments are in memory at the same time."""

CACHED_SEGMENTS, CACHED_CHARACTERS = 1 << 17, 64
"""Maximum number of cached segments, about 200 bytes each, and maximum length of one."""

BERT_NORMALIZER = "BertNormalizer"


def pattern_for(parts: Mapping[str, Any]) -> re.Pattern[str] | None:
    """The expression of the segments of a tokenizer.json; None if segments are not known to be independent.

    >>> pattern_for({"pre_tokenizer": BYTE_LEVEL, "normalizer": None, "model": {}}) is SEPARATE_LINE_ENDS
    True
    """
    normalizer, pre_tokenizer = canonical(parts.get("normalizer")), parts.get("pre_tokenizer")
    kind = normalizer.get("type") if isinstance(normalizer, Mapping) else normalizer
    if parts["model"].get("dropout") or (
        kind and any(is_plain_token(token) for token in parts.get("added_tokens") or ())
    ):
        return None  # an added token may be found in the normalized text
    if kind == BERT_NORMALIZER:
        return SEPARATE_LINE_ENDS if is_equivalent(pre_tokenizer, {"type": "BertPreTokenizer"}) else None
    if kind not in (None, "NFC"):
        return None
    if any(is_equivalent(pre_tokenizer, step) for step in JOINING_PRE_TOKENIZERS):
        return JOINED_LINE_ENDS
    return SEPARATE_LINE_ENDS if any(is_equivalent(pre_tokenizer, step) for step in OTHER_PRE_TOKENIZERS) else None


JOINING_PRE_TOKENIZERS = [
    sequence(split_step(pattern), BYTE_LEVEL_NO_REGEX) for pattern in (LLAMA3, QWEN2, GPT4O, CL100K)
]
"""Those that join line ends to the punctuation mark before them."""

OTHER_PRE_TOKENIZERS = [BYTE_LEVEL, PRETOKENIZERS["smollm"].pre_tokenizer, PRETOKENIZERS["falcon"].pre_tokenizer]


def is_plain_token(token: Mapping[str, Any]) -> bool:
    """Whether an added token is found in texts: it is not special."""
    return not token.get("special")


class SegmentIds(dict[str, bytes]):
    """The bytes of the ids of segments; those that are looked up for the first time are encoded.

    Args:
        encode: token ids of a segment, by the library.
        typecode: type of the ids, as in `array`.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], typecode: str) -> None:
        super().__init__()
        self.encode, self.typecode = encode, typecode

    def __missing__(self, segment: str) -> bytes:
        """Encode a segment, and keep its ids unless it is long."""
        ids = array(self.typecode, self.encode(segment)).tobytes()
        if len(segment) <= CACHED_CHARACTERS:
            if len(self) >= CACHED_SEGMENTS:
                self.clear()
            self[segment] = ids
        return ids


def segment_encoder(
    pattern: re.Pattern[str], encode: Callable[[str], Sequence[int]], dtype: np.dtype[np.unsignedinteger[Any]]
) -> Callable[[Sequence[str]], list[Ids]]:
    """A function that encodes texts by segments to arrays of ids.

    Args:
        pattern: the expression of segments, see `pattern_for`.
        encode: token ids of a segment, by the library.
        dtype: type of the ids.
    """
    ids_of = SegmentIds(encode, dtype.char).__getitem__

    def encode_text(text: str) -> Ids:
        parts = (b"".join(map(ids_of, pattern.findall(chunk))) for chunk in chunks(text, CUT))
        return np.frombuffer(b"".join(parts), dtype)

    return lambda texts: [encode_text(text) for text in texts]


def chunks(text: str, cut: re.Pattern[str], size: int | None = None) -> Iterator[str]:
    """The text in parts of about `size` characters, each beginning with a match of `cut`; one empty part of none.

    `size`: CHUNK by default.
    """
    start, size = 0, size or CHUNK
    while match := cut.search(text, start + size) if len(text) - start > size else None:
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]
