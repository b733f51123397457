"""Encoding by segments: a text is cut where every pre-tokenizer cuts, and each different segment is encoded once.

The pre-tokenizers of published byte-level BPE tokenizers and BERT's cut between a letter, digit or punctuation mark and
the white space that follows, and nothing before such a cut depends on what follows it, or the other way round:

    He said, "don't"⏎⏎  He left.     →     He| said|,| "don't"|⏎⏎  He| left|.

So the ids of the text are those of its segments, joined. A few regular expressions find the segments, and the library
encodes those that are new. Twenty megabytes of English have 4 million segments, of which 85,000 are different
(benchmarks/results/tokenizing.json).

Segments end only between ASCII characters, or before ASCII white space: which other characters are letters depends on
the version of Unicode, and a combining mark belongs to the character before it.
"""

from __future__ import annotations

import re
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
"""White space before which every text may be cut, whatever the pre-tokenizer."""

CHUNK = 1 << 17
"""Characters whose segments are held at once."""

CACHED_SEGMENTS, CACHED_CHARACTERS = 1 << 17, 64
"""Segments kept, about 200 bytes each, and the longest that is kept."""

LIBRARY_BATCH = 1 << 12
"""Segments encoded per call: the library needs about a kilobyte for each."""

BERT_NORMALIZER = "BertNormalizer"


def pattern_for(parts: Mapping[str, Any]) -> re.Pattern[str] | None:
    """The expression of the segments of a tokenizer.json; None where segments are not known to be independent.

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


class SegmentEncoder:
    """Encodes texts by segments; the ids of segments that were met are kept.

    Args:
        pattern: the expression of segments, see `pattern_for`.
        encode_batch: token ids of each of several texts, by the library.
        dtype: type of the ids.
    """

    def __init__(
        self,
        pattern: re.Pattern[str],
        encode_batch: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        dtype: np.dtype[np.unsignedinteger[Any]],
    ) -> None:
        self.pattern, self.encode_batch, self.dtype = pattern, encode_batch, dtype
        self.known: dict[str, bytes] = {}

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text."""
        found: list[Ids] = []
        for group in groups(texts):
            if len(group) == 1:
                data = b"".join(self.encode_group([chunk])[0] for chunk in chunks(group[0], CUT))
                found.append(np.frombuffer(data, self.dtype))
            else:
                found += [np.frombuffer(data, self.dtype) for data in self.encode_group(group)]
        return found

    def encode_group(self, texts: Sequence[str]) -> list[bytes]:
        """The bytes of the ids of texts that are short together."""
        split = [self.pattern.findall(text) for text in texts]
        known, different = self.known, set[str]().union(*split)
        new = list(different.difference(known))
        if len(known) + len(new) > CACHED_SEGMENTS:
            known.clear()
            new = list(different)
        for start in range(0, len(new), LIBRARY_BATCH):
            batch = new[start : start + LIBRARY_BATCH]
            for segment, ids in zip(batch, self.encode_batch(batch), strict=True):
                known[segment] = np.array(ids, self.dtype).tobytes()
        joined = [b"".join(map(known.__getitem__, segments)) for segments in split]
        for segment in new:
            if len(segment) > CACHED_CHARACTERS:
                del known[segment]
        return joined


def groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, in groups of about CHUNK characters; a long text is a group of its own."""
    start = size = 0
    for index, text in enumerate(texts):
        if index > start and size + len(text) > CHUNK:
            yield texts[start:index]
            start, size = index, 0
        size += len(text) + 1
    if start < len(texts):
        yield texts[start:]


def chunks(text: str, cut: re.Pattern[str], size: int | None = None) -> Iterator[str]:
    """The text in parts of about `size` characters, each beginning with a match of `cut`; one empty part of none.

    `size`: CHUNK by default.
    """
    start, size = 0, size or CHUNK
    while match := cut.search(text, start + size) if len(text) - start > size else None:
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]
