"""Tile grid: a small image for each pair of row and column, such as the attention pattern of every head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Tile:
    """A small image: its category, the score for that category, and its cells from 0 to 255, row by row."""

    category: str
    score: float
    cells: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class TileGrid(View):
    """A tile for each pair of row and column.

    `categories` are all categories in the order of their colours; the last is for tiles without a clear category, which
    have no colour.
    """

    kind: ClassVar[str] = "tile_grid"
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    tiles: tuple[tuple[Tile, ...], ...]
    categories: tuple[str, ...]
    caption: str | None = None

    def __post_init__(self) -> None:
        if len(self.tiles) != len(self.row_labels) or {len(row) for row in self.tiles} != {len(self.column_labels)}:
            raise BadInput(
                f"a tile grid of {len(self.row_labels)} × {len(self.column_labels)} labels has tiles in another shape; "
                "give a tile for each pair"
            )
        if unknown := {tile.category for row in self.tiles for tile in row} - set(self.categories):
            raise BadInput(
                f"tiles have the categories {', '.join(sorted(unknown))}, which the grid does not list; "
                f"it lists {', '.join(self.categories)}"
            )
