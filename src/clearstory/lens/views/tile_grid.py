"""Tile grid: a small image for each pair of row and column, such as the attention pattern of every head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Tile:
    """One of many small pictures: what it is called, how much it is that, and its cells, 0 to 255."""

    name: str
    score: float
    cells: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class TileGrid(View):
    """A small picture for each row and column: every head of every layer. `kinds` are the names that tiles may have."""

    kind: ClassVar[str] = "tile_grid"
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    tiles: tuple[tuple[Tile, ...], ...]
    kinds: tuple[str, ...]
    caption: str | None = None

    def __post_init__(self) -> None:
        if len(self.tiles) != len(self.row_labels) or {len(row) for row in self.tiles} != {len(self.column_labels)}:
            raise BadInput(
                f"a mosaic of {len(self.row_labels)} × {len(self.column_labels)} labels has tiles in another shape; "
                "give one for each pair"
            )
        if unknown := {tile.name for row in self.tiles for tile in row} - set(self.kinds):
            raise BadInput(f"a mosaic's tiles are called {', '.join(sorted(unknown))}, which are none of its kinds")
