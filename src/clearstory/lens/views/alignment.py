"""Alignment of two views for a difference: common labels and spans of text, and captions of the differences."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from clearstory.errors import CannotDo
from clearstory.lens.views.base import View
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.text import HighlightedText, Span

Difference = tuple[float, str, float, float]
"""B − A, the name of the quantity, A's value and B's value."""


def difference_title(a: View, b: View) -> str:
    """The title of B − A."""
    return f"B − A: {a.title}" if a.title == b.title else f"B − A: {b.title} (B), {a.title} (A)"


def common_unit(a: str, b: str) -> str:
    """The unit of both views. Raises CannotDo if they differ."""
    if a != b:
        raise CannotDo(
            f"the unit of A is {a or 'plain numbers'} and the unit of B is {b or 'plain numbers'}; "
            "give both the same settings"
        )
    return a


@dataclass(frozen=True)
class AlignedLabels:
    """Labels that two views have in common, the index of each in A and in B, and a note on the alignment."""

    labels: tuple[str, ...]
    indices: tuple[tuple[int, int], ...]
    note: str = ""


def align_labels(a: Sequence[str], b: Sequence[str], what: str) -> AlignedLabels:
    """Labels aligned by index if at least half are equal; numbers (units of a layer) by value.

    Raises CannotDo for labels of different count, or of which more than half differ. `what` names them in the message.
    """
    if all(each.isdecimal() for each in (*a, *b)) and tuple(a) != tuple(b):
        both = [each for each in a if each in b]
        if both:
            note = f"Of {len(a):,} and {len(b):,} {what}, the {len(both):,} that both have."
            return AlignedLabels(tuple(both), tuple((list(a).index(each), list(b).index(each)) for each in both), note)
    if len(a) != len(b):
        raise CannotDo(
            f"A has {len(a):,} {what} and B has {len(b):,}, which cannot be aligned; compare texts with the same "
            "number of tokens in models with the same number of layers, or choose next-token, which compares any two"
        )
    pairs = [(strip_position(x), strip_position(y)) for x, y in zip(a, b, strict=True)]
    same = sum(x == y for x, y in pairs)
    if 2 * same < len(pairs):
        x, y = next(pair for pair in pairs if pair[0] != pair[1])
        raise CannotDo(
            f"only {same:,} of {len(pairs):,} {what} are the same in A and B (‘{x}’ in A is ‘{y}’ in B); change "
            "fewer words, or choose next-token, which compares any two texts"
        )
    labels = tuple(label if x == y else join_labels(x, y) for label, (x, y) in zip(a, pairs, strict=True))
    different = [f"‘{x}’ in A is ‘{y}’ in B" for x, y in pairs if x != y]
    note = f"{'; '.join(different)}." if different else ""
    return AlignedLabels(labels, tuple((index, index) for index in range(len(a))), note)


def strip_position(label: str) -> str:
    """A token label without the position that distinguishes duplicates.

    >>> strip_position("the·2")
    'the'
    """
    return re.sub(r"(?<=.)·\d+$", "", label)


def join_labels(a: str, b: str) -> str:
    """The labels of A and B in one.

    >>> join_labels("cat", "dog"), join_labels("cat", "cat")
    ('cat→dog', 'cat')
    """
    return a if a == b else f"{a}→{b}"


def format_signed(value: float) -> str:
    """A difference with its sign, in a few characters.

    >>> format_signed(0.25), format_signed(-1234.5), format_signed(0.0)
    ('+0.25', '−1.2e3', '0')
    """
    if not value or not math.isfinite(value):
        return "0" if value == 0 else "−∞"
    text = re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1].strip('+')}{e[2]}", f"{abs(value):.2g}")
    return ("+" if value > 0 else "−") + text


def describe_extremes(differences: Sequence[Difference]) -> str:
    """A sentence with the largest increase and the largest decrease.

    >>> describe_extremes([(0.25, "‘a’", 0.5, 0.75), (0.0, "‘b’", 0.1, 0.1)])
    'Largest increase in B: ‘a’ by 0.25 (0.5 → 0.75).'
    """
    if not any(value for value, *_ in differences):
        return "No number differs between A and B."
    most, least = max(differences, key=lambda each: each[0]), min(differences, key=lambda each: each[0])
    ends = [("increase", most)] * (most[0] > 0) + [("decrease", least)] * (least[0] < 0)
    text = "; ".join(
        f"largest {word} in B: {name} by {format_cell(abs(value))} ({format_cell(a)} → {format_cell(b)})"
        for word, (value, name, a, b) in ends
    )
    return f"L{text[1:]}."


def describe_mean(differences: Sequence[Difference], unit: str) -> str:
    """A sentence with the mean absolute difference."""
    mean = math.fsum(abs(value) for value, *_ in differences) / len(differences)
    return f"Mean absolute difference: {format_cell(mean)}{f' {unit}' if unit else ''}."


@dataclass(frozen=True)
class AlignedSpan:
    """A stretch of text with a token boundary of both A and B at each end, and the spans of each side in it."""

    text: str
    name: str
    a: tuple[Span, ...]
    b: tuple[Span, ...]

    @property
    def sums(self) -> tuple[float | None, float | None]:
        """The sums over A's and over B's spans; None if one of the spans has no number."""
        sum_a, sum_b = (
            None
            if not side or any(each.value is None for each in side)
            else math.fsum(each.value or 0 for each in side)
            for side in (self.a, self.b)
        )
        return sum_a, sum_b


def align_spans(a: HighlightedText, b: HighlightedText) -> Iterator[AlignedSpan]:
    """The shortest stretches of a text between common token boundaries. Empty spans belong to the one before them."""
    stops = [list(accumulate(len(span.text) for span in view.spans)) for view in (a, b)]
    ends = sorted(set(stops[0]) & set(stops[1]))
    sides: list[list[list[Span]]] = [[[] for _ in ends] for _ in stops]
    for side, own_stops, view in zip(sides, stops, (a, b), strict=True):
        for stop, span in zip(own_stops, view.spans, strict=True):
            side[bisect_left(ends, stop)].append(span)
    for spans_a, spans_b in zip(*sides, strict=True):
        text = "".join(span.text for span in spans_a)
        yield AlignedSpan(text, text, tuple(spans_a), tuple(spans_b))
