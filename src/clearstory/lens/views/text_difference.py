"""The difference of two highlighted texts, aligned by characters."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from clearstory.errors import CannotDo
from clearstory.lens.views.alignment import (
    align_labels,
    common_unit,
    describe_extremes,
    describe_mean,
    difference_title,
    format_signed,
)
from clearstory.lens.views.base import Cell
from clearstory.lens.views.highlighted_text import HighlightedText, Span
from clearstory.lens.views.number_format import format_cell

THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Thresholds of the colours of differences, in the unit of the text."""


def subtract_texts(a: HighlightedText, b: HighlightedText) -> HighlightedText:
    """B − A over the same characters.

    If both have the same text, numbers are summed between the boundaries that both tokenizations share. Two texts with
    the same number of spans, of which at least half are equal, are compared span by span.
    """
    unit = common_unit(a.unit, b.unit)
    texts = ["".join(span.text for span in view.spans) for view in (a, b)]
    same_text = texts[0] == texts[1]
    if same_text:
        aligned = list(align_spans(a, b))
    else:
        labels = [[span.text for span in view.spans] for view in (a, b)]
        names = align_labels(labels[0], labels[1], "spans").labels
        aligned = [AlignedSpan(y.text, name, (x,), (y,)) for name, x, y in zip(names, a.spans, b.spans, strict=True)]
    spans, differences = [], []
    for each in aligned:
        x, y = each.sums
        if x is None or y is None:
            spans.append(Span(each.text, None))
            continue
        pieces = [" · ".join(show_whitespace(span.text) for span in side) for side in (each.a, each.b)]
        cut = f"   A reads {pieces[0]}, B {pieces[1]}" if pieces[0] != pieces[1] and same_text else ""
        name = show_whitespace(each.name)
        note = f"{name}   {format_signed(y - x)} {unit}   {format_cell(x)} in A, {format_cell(y)} in B{cut}"
        spans.append(Span(each.text, y - x, note, (x, y)))
        differences.append((y - x, f"‘{name.strip()}’", x, y))
    if not differences:
        raise CannotDo("no span has a number in both A and B; give a longer text")
    sums = math.fsum(x for *_, x, _ in differences), math.fsum(y for *_, y in differences)
    notes = [describe_extremes(differences), describe_mean(differences, unit)]
    if sums[0] != sums[1]:
        notes.insert(
            0,
            f"B takes {format_cell(abs(sums[1] - sums[0]))} {unit} {'more' if sums[1] > sums[0] else 'fewer'} in all.",
        )
    if joined := sum(len(each.a) > 1 or len(each.b) > 1 for each in aligned):
        notes.append(
            f"The tokenizations differ: {joined:,} of {len(aligned):,} aligned spans are several tokens in A or B."
        )
    return HighlightedText(
        title=difference_title(a, b),
        spans=tuple(spans),
        unit=unit,
        columns=(f"{unit}, A", f"{unit}, B"),
        thresholds=THRESHOLDS,
        signed=True,
        totals=(
            (f"{unit}, A", sums[0]),
            (f"{unit}, B", sums[1]),
            ("B − A", sums[1] - sums[0]),
            *(per_byte_totals(a, b) if same_text else ()),
        ),
        caption=" ".join(notes),
    )


def show_whitespace(text: str) -> str:
    """A text with visible characters for spaces, line feeds and tabs."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def per_byte_totals(a: HighlightedText, b: HighlightedText) -> tuple[tuple[str, Cell], ...]:
    """The per-byte totals of A and B; empty if one of them has none."""
    name = f"{a.unit} per byte"
    both = [dict(view.totals).get(name) for view in (a, b)]
    return ((f"{name}, A", both[0]), (f"{name}, B", both[1])) if None not in both else ()


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
    for side, own, view in zip(sides, stops, (a, b), strict=True):
        for stop, span in zip(own, view.spans, strict=True):
            side[bisect_left(ends, stop)].append(span)
    for spans_a, spans_b in zip(*sides, strict=True):
        text = "".join(span.text for span in spans_a)
        yield AlignedSpan(text, text, tuple(spans_a), tuple(spans_b))
