"""Report: several views under one title, shown one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View
from clearstory.lens.views.diagrams import Figure, Tree
from clearstory.lens.views.grids import Grid, Table, TileGrid
from clearstory.lens.views.plots import Curve, Map
from clearstory.lens.views.text import HighlightedText

Panel = Grid | Curve | HighlightedText | Table | TileGrid | Map | Figure | Tree
"""A view that is not a report."""


@dataclass(frozen=True, kw_only=True)
class Report(View):
    """Panels in order, each usually computed from those before it: queries, keys, their products, the softmax."""

    kind: ClassVar[str] = "report"
    title: str
    panels: tuple[Panel, ...]
    caption: str | None = None

    def __post_init__(self) -> None:
        if not self.panels:
            raise BadInput(f"the report '{self.title}' has no panels; give it at least one view")


def panels_of(view: View) -> tuple[Panel, ...]:
    """The panels of a report; a tuple of the view itself for any other."""
    return view.panels if isinstance(view, Report) else (view,)  # type: ignore[return-value]  # all other views are panels
