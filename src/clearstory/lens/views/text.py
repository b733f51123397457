"""Highlighted text: spans of a text, each coloured by its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import Cell, View


@dataclass(frozen=True)
class Span:
    """A piece of text and its number (None: not coloured).

    `note` is shown when the span is pointed at; `cells` are further values, one for each of the view's `columns`.
    """

    text: str
    value: float | None
    note: str = ""
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HighlightedText(View):
    """A text in spans, each coloured by its number, such as the surprisal of every token.

    The texts of all spans joined are the whole text. `thresholds` are at most five increasing numbers; a span's colour
    gets stronger with each one that its number reaches. With `signed`, numbers below zero have a separate colour.
    `totals` are (name, value) pairs over the whole text.
    """

    kind: ClassVar[str] = "highlighted_text"
    title: str
    spans: tuple[Span, ...]
    unit: str = ""
    columns: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    signed: bool = False
    totals: tuple[tuple[str, Cell], ...] = ()
    caption: str | None = None

    def __post_init__(self) -> None:
        if list(self.thresholds) != sorted(self.thresholds) or len(self.thresholds) > 5:
            raise BadInput(f"thresholds are {self.thresholds}; give at most five rising numbers")
        for span in self.spans:
            if span.cells and len(span.cells) != len(self.columns):
                raise BadInput(
                    f"the view has {len(self.columns)} columns and a span has {len(span.cells)} cells; give as many"
                )

    def level(self, span: Span) -> int:
        """The number of thresholds that a span's number reaches."""
        if span.value is None:
            return 0
        return sum((abs(span.value) if self.signed else span.value) >= threshold for threshold in self.thresholds)

    def color_class(self, span: Span) -> str:
        """The name of a span's colour: "heat-LEVEL", or for signed numbers "more-LEVEL" and "less-LEVEL"."""
        level = self.level(span)
        if not self.signed or not level:
            return f"heat-{level}"
        return f"more-{level}" if (span.value or 0) > 0 else f"less-{level}"

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data, with `totals` as a dictionary."""
        data = super().to_json()
        return {**data, "totals": dict(data["totals"])}
