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
"""The kinds."""


@dataclass(frozen=True, kw_only=True)
class Report(View):
    """Views one after another, each made from those before it: queries, keys, their products, what comes of them."""

    kind: ClassVar[str] = "report"
    title: str
    steps: tuple[Panel, ...]
    caption: str | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            raise BadInput(f"the walk '{self.title}' has no steps; give it at least one view")
