"""Report: several views under one title, shown one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View
from clearstory.lens.views.curve import Curve
from clearstory.lens.views.figure import Figure
from clearstory.lens.views.grid import Grid
from clearstory.lens.views.highlighted_text import HighlightedText
from clearstory.lens.views.map import Map
from clearstory.lens.views.table import Table
from clearstory.lens.views.tile_grid import TileGrid
from clearstory.lens.views.tree import Tree

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
