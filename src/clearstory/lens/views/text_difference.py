"""Stretches: two texts in pieces, taken from each other over the same characters."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from clearstory.errors import CannotDo
from clearstory.lens.views.alignment import average, found, paired, same_unit, signed, titled
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.views import Cell, Span, HighlightedText

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Where the colours of differences get stronger, in the text's unit."""


def of_texts(a: HighlightedText, b: HighlightedText) -> HighlightedText:
    """Over the same characters: where the sides cut a text in other places, their numbers are added up between the cuts
    that both have. Two texts of as many pieces, of which at least half are the same, are compared piece by piece.
    """
    unit = same_unit(a.unit, b.unit)
    texts = ["".join(span.text for span in view.spans) for view in (a, b)]
    if texts[0] == texts[1]:
        parts = list(between(a, b))
    else:
        labels = [[span.text for span in view.spans] for view in (a, b)]
        pairs = paired(labels[0], labels[1], "pieces")
        parts = [Part(y.text, label, (x,), (y,)) for label, x, y in zip(pairs.labels, a.spans, b.spans, strict=True)]
    spans, cells = [], []
    for part in parts:
        x, y = part.sums
        if x is None or y is None:
            spans.append(Span(part.text, None))
            continue
        pieces = [" · ".join(visible(each.text) for each in side) for side in (part.a, part.b)]
        cut = f"   A reads {pieces[0]}, B {pieces[1]}" if pieces[0] != pieces[1] and texts[0] == texts[1] else ""
        name = visible(part.name)
        note = f"{name}   {signed(y - x)} {unit}   {cell_text(x)} in A, {cell_text(y)} in B{cut}"
        spans.append(Span(part.text, y - x, note, (x, y)))
        cells.append((y - x, f"‘{name.strip()}’", x, y))
    if not cells:
        raise CannotDo("no piece has a number on both sides; give a longer text")
    sums = [math.fsum(x for *_, x, _ in cells), math.fsum(y for *_, y in cells)]
    joined = sum(len(part.a) > 1 or len(part.b) > 1 for part in parts)
    per = sizes(a, b) if texts[0] == texts[1] else ()
    whole = f"B takes {cell_text(abs(sums[1] - sums[0]))} {unit} {'more' if sums[1] > sums[0] else 'fewer'} in all."
    note = f"The sides cut the text in other places: {joined:,} of {len(parts):,} stretches are several pieces on one."
    return HighlightedText(
        title=titled(a, b),
        spans=tuple(spans),
        unit=unit,
        columns=(f"{unit}, A", f"{unit}, B"),
        levels=LEVELS,
        signed=True,
        totals=((f"{unit}, A", sums[0]), (f"{unit}, B", sums[1]), ("B − A", sums[1] - sums[0]), *per),
        caption=" ".join(
            [*([whole] if sums[0] != sums[1] else []), found(cells), average(cells, unit), *([note] if joined else [])]
        ),
    )


def visible(text: str) -> str:
    """A piece whose spaces can be seen."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def sizes(a: HighlightedText, b: HighlightedText) -> tuple[tuple[str, Cell], ...]:
    """Numbers per byte of both sides, where both have them."""
    name = f"{a.unit} per byte"
    both = [dict(view.totals).get(name) for view in (a, b)]
    return ((f"{name}, A", both[0]), (f"{name}, B", both[1])) if None not in both else ()


@dataclass(frozen=True)
class Part:
    """A stretch of a text that both sides cut at its ends, and the pieces of each in it."""

    text: str
    name: str
    a: tuple[Span, ...]
    b: tuple[Span, ...]

    @property
    def sums(self) -> tuple[float | None, float | None]:
        """The numbers of both sides; None where a piece has none."""
        one, other = (
            None
            if not side or any(each.value is None for each in side)
            else math.fsum(each.value or 0 for each in side)
            for side in (self.a, self.b)
        )
        return one, other


def between(a: HighlightedText, b: HighlightedText) -> Iterator[Part]:
    """The shortest stretches at whose ends both sides cut; pieces without a letter belong to the one before them."""
    stops = [list(accumulate(len(span.text) for span in view.spans)) for view in (a, b)]
    ends = sorted(set(stops[0]) & set(stops[1]))
    sides: list[list[list[Span]]] = [[[] for _ in ends] for _ in stops]
    for side, own, view in zip(sides, stops, (a, b), strict=True):
        for stop, span in zip(own, view.spans, strict=True):
            side[bisect_left(ends, stop)].append(span)
    for mine, theirs in zip(*sides, strict=True):
        text = "".join(span.text for span in mine)
        yield Part(text, text, tuple(mine), tuple(theirs))
