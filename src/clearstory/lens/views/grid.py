"""Grid: a matrix of numbers with row and column labels, such as attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import View

GridPalette = Literal["sequential", "query", "key", "value", "diverging"]
"""Colours of a grid: sequential for most quantities; one colour each for the queries, keys and values of a head;
diverging for differences, orange above zero and blue below, which colour-blind readers can tell apart."""


@dataclass(frozen=True, kw_only=True)
class Grid(View):
    """A matrix of numbers with a label for each row and column.

    Numbers are shown as squares, darker for larger; with `dots`, for numbers of either sign, as circles whose area is
    the magnitude, hollow below zero. -inf marks a masked cell. `texts` are words to show in the cells, coloured by the
    numbers; text after a line feed is a small annotation. `unit` is the unit of the numbers.
    """

    kind: ClassVar[str] = "grid"
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...] | None = None
    unit: str = ""
    palette: GridPalette = "sequential"
    dots: bool = False
    caption: str | None = None

    def __post_init__(self) -> None:
        if self.texts is not None and [len(row) for row in self.texts] != [len(row) for row in self.values]:
            raise BadInput("the texts of a grid have another shape than its values; give a text for each value")
        shape = (len(self.values), {len(row) for row in self.values} or {len(self.column_labels)})
        if shape != (len(self.row_labels), {len(self.column_labels)}):
            raise BadInput(
                f"a grid of {len(self.row_labels)} × {len(self.column_labels)} labels has {shape[0]} rows of values; "
                "give a value for each pair"
            )
