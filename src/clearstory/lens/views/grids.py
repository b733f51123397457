"""Tables, grids of numbers, and grids of small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import Cell, View


@dataclass(frozen=True, kw_only=True)
class Table(View):
    """Rows of cells under named columns. The numbers of the column named by `bar` are also drawn as bars.

    >>> Table(title="Next", columns=("token", "probability"), rows=(("a", 0.75),), bar="probability").to_json()["kind"]
    'table'
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bar: str | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise BadInput(
                    f"a row has {len(row)} cells and the table has {len(self.columns)} columns; give a cell for each"
                )
        if self.bar is not None and self.bar not in self.columns:
            raise BadInput(f"bar is '{self.bar}', which is not a column; choose one of {', '.join(self.columns)}")

    def column(self, name: str) -> list[Cell]:
        """The cells of one column, from top to bottom."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


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
