"""Grid: a matrix of numbers with row and column labels, such as attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


GridPalette = Literal["bar", "query", "key", "value", "apart"]
"""The colours of a grid: any numbers; what a head asks for, answers to, and answers with; differences, which are orange
above zero and blue below, since those two are told apart by the colour-blind too."""


@dataclass(frozen=True, kw_only=True)
class Grid(View):
    """Numbers with a label for each row and column: attention of every token on every other.

    They are squares, stronger for more; or `dots` whose area is the number, hollow below zero, for those that may be
    either. -inf is no number of the scale: nobody may look there. `ink`: what they are the numbers of.
    `texts` are words to stand in the cells, coloured by the numbers; what follows a line feed is a remark in small.
    """

    kind: ClassVar[str] = "grid"
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...] | None = None
    unit: str = ""
    ink: GridPalette = "bar"
    dots: bool = False
    caption: str | None = None

    def __post_init__(self) -> None:
        if self.texts is not None and [len(row) for row in self.texts] != [len(row) for row in self.values]:
            raise BadInput("a grid has words in other cells than numbers; give a text for each number")
        shape = (len(self.values), {len(row) for row in self.values} or {len(self.column_labels)})
        if shape != (len(self.row_labels), {len(self.column_labels)}):
            raise BadInput(
                f"a grid of {len(self.row_labels)} × {len(self.column_labels)} labels has {shape[0]} rows of values; "
                "give a value for each pair"
            )
