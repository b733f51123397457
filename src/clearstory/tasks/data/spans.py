"""Character spans of entities, {text, spans: [[start, end, label], …]}, as words with BIO tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from clearstory.errors import BadInput
from clearstory.tasks.data.chunk_tags import OUTSIDE

WORD = re.compile(r"\w+|[^\w\s]")
"""A run of letters and digits, or one mark."""

STARTS = ("start", "start_offset", "start_char", "begin")
ENDS = ("end", "end_offset", "end_char", "stop")
TYPES = ("label", "type", "entity", "entity_group", "tag", "entity_type")

Span = tuple[int, int, str]
"""Start, end (exclusive) and label, in characters."""


def split_words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of a text; every punctuation mark is a word.

    >>> split_words("I'm in."), split_words("")
    ([(0, 1), (1, 2), (2, 3), (4, 6), (6, 7)], [])
    """
    return [match.span() for match in WORD.finditer(text)]


def read_spans(value: Any, text: str, location: str) -> list[Span]:
    """The spans of a text, in order. Raises BadInput for one outside of the text, an empty one, and an overlap."""
    spans: list[Span] = []
    for each in value or ():
        start: Any
        end: Any
        label: Any
        if isinstance(each, dict):
            start, end, label = (next((each[name] for name in names if name in each), None) for names in _NAMES)
        elif isinstance(each, list | tuple) and len(each) >= 3:
            start, end, label = each[:3]
        else:
            raise BadInput(f"{location}: the span {str(each)[:40]} is not [start, end, label]; correct it")
        if not (_is_index(start) and _is_index(end) and isinstance(label, str) and label.strip()):
            raise BadInput(
                f'{location}: the span {str(each)[:60]} has no start, end and label; write [0, 4, "PER"] '
                "for characters 0 to 3"
            )
        if not 0 <= start < end <= len(text) or not text[start:end].strip():
            raise BadInput(
                f"{location}: the span {start} to {end} ({label}) is not within the {len(text)} characters of the "
                "text, or is empty; a span is [start, end, label] with the end exclusive"
            )
        spans.append((start, end, "_".join(label.split())))
    spans.sort()
    for (_, end, one), (start, _, two) in pairwise(spans):
        if start < end:
            raise BadInput(
                f"{location}: the spans of {one} and {two} overlap at character {start}; a word has one tag: remove "
                "one of them"
            )
    return spans


def tag_words(text: str, spans: Sequence[Span]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...], int]:
    """Words, BIO tags, after which words no space follows, and the number of spans that were extended to whole words.

    >>> tag_words("Ada left Rome.", [(0, 3, "PER"), (9, 12, "LOC")])[:2]
    (('Ada', 'left', 'Rome', '.'), ('B-PER', 'O', 'B-LOC', 'O'))
    """
    words = split_words(text)
    tags = [OUTSIDE] * len(words)
    extended = 0
    for start, end, label in spans:
        inside = [index for index, (begin, stop) in enumerate(words) if begin < end and stop > start]
        free = [index for index in inside if tags[index] == OUTSIDE]
        for index in free:
            tags[index] = f"{'B' if index == free[0] else 'I'}-{label}"
        extended += bool(inside) and (words[inside[0]][0] < start or words[inside[-1]][1] > end)
    no_space = tuple(stop == begin for (_, stop), (begin, _) in pairwise(words))
    return tuple(text[begin:stop] for begin, stop in words), tuple(tags), (*no_space, False) if words else (), extended


_NAMES = (STARTS, ENDS, TYPES)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
