"""Highlighted text: a text in spans, each coloured by a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import Cell, View


@dataclass(frozen=True)
class Span:
    """A piece of text and its number; `note` says more in words, `facts` what `columns` of the view name."""

    text: str
    value: float | None
    note: str = ""
    facts: tuple[Cell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HighlightedText(View):
    """A text in pieces, each coloured by its number: how surprising every token was.

    The pieces' texts joined are the whole text; one without a number is left plain. `levels` are rising numbers, five
    or fewer: each that a number reaches makes its colour stronger. `signed`: numbers below zero have a colour of their
    own, by their size. `totals` are sums over all, by their names.
    """

    kind: ClassVar[str] = "highlighted_text"
    title: str
    spans: tuple[Span, ...]
    unit: str = ""
    columns: tuple[str, ...] = ()
    levels: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    signed: bool = False
    totals: tuple[tuple[str, Cell], ...] = ()
    caption: str | None = None

    def __post_init__(self) -> None:
        if list(self.levels) != sorted(self.levels) or len(self.levels) > 5:
            raise BadInput(f"levels are {self.levels}; give at most five rising numbers")
        if any(span.facts and len(span.facts) != len(self.columns) for span in self.spans):
            raise BadInput(
                f"the view names {len(self.columns)} facts and a piece has another number; give one for each"
            )

    def level(self, span: Span) -> int:
        """How many levels a piece's number reaches."""
        if span.value is None:
            return 0
        return sum((abs(span.value) if self.signed else span.value) >= level for level in self.levels)

    def shade(self, span: Span) -> str:
        """The name of a piece's colour: heat-0 and on; of signed numbers, more-1 and on above zero, less-1 below."""
        level = self.level(span)
        if not self.signed or not level:
            return f"heat-{level}"
        return f"more-{level}" if (span.value or 0) > 0 else f"less-{level}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, the totals by their names."""
        said = super().to_json()
        return {**said, "totals": dict(said["totals"])}
