"""Views: a view is data. Eight kinds and walks through them, plain enough for JSON, that `draw` sets in the terminal or
a file. Tables, curves, grids and texts are here; maps and figures in placed.py, trees in branches.py.

Every view has a title, and a `look` where there is something to look for: one sentence reckoned from the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.tree import Node as Node
from clearstory.lens.views.tree import Tree as Tree
from clearstory.lens.views.figure import Figure as Figure
from clearstory.lens.views.figure import Map as Map
from clearstory.lens.views.base import Cell as Cell
from clearstory.lens.views.base import View

GridPalette = Literal["bar", "query", "key", "value", "apart"]
"""The colours of a grid: any numbers; what a head asks for, answers to, and answers with; differences, which are orange
above zero and blue below, since those two are told apart by the colour-blind too."""


@dataclass(frozen=True, kw_only=True)
class Table(View):
    """Rows of cells under named columns; the column named in `bar` is drawn as bars too.

    >>> Table(title="Next", columns=("token", "probability"), rows=(("a", 0.75),), bar="probability").to_json()["kind"]
    'table'
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bar: str | None = None
    look: str | None = None

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise BadInput(f"a table of {len(self.columns)} columns has a row of another length; give a cell for each")
        if self.bar is not None and self.bar not in self.columns:
            raise BadInput(
                f"bars are to show '{self.bar}', which is no column; choose one of {', '.join(self.columns)}"
            )

    def column(self, name: str) -> list[Cell]:
        """One column from top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Line:
    """A named line through points; `dashed` for what is not the main thing.

    `of` names a line before it that it belongs to, as a law does to what was measured: it has that one's colour, and
    no place of its own in the legend.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False
    of: str | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise BadInput(f"line '{self.name}' has {len(self.x)} places and {len(self.y)} heights; give one for each")


@dataclass(frozen=True)
class Band:
    """A strip to compare lines with: at each place from `low` to `high`, such as the runs of several seeds."""

    name: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.low) == len(self.high):
            raise BadInput(
                f"band '{self.name}' has {len(self.x)} places, {len(self.low)} lows and {len(self.high)} highs; "
                "give one of each"
            )


@dataclass(frozen=True, kw_only=True)
class Curve(View):
    """Lines over a common axis: a training curve, a calibration. Labels carry their units: "bits per byte"."""

    kind: ClassVar[str] = "curve"
    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    band: Band | None = None
    look: str | None = None

    def __post_init__(self) -> None:
        for number, line in enumerate(self.lines):
            if line.of is not None and line.of not in [other.name for other in self.lines[:number]]:
                raise BadInput(f"line '{line.name}' belongs to '{line.of}', which is no line before it; name one")

    def inks(self) -> list[int]:
        """The number of each line's colour."""
        inks: list[int] = []
        known: dict[str, int] = {}
        own = 0
        for line in self.lines:
            if line.of is None:
                # Two lines of one name are still two.
                known[line.name], own = own, own + 1
            inks.append(known[line.of or line.name])
        return inks

    def points(self, line: Line) -> list[tuple[float, float]]:
        """The points that can be drawn: numbers, and above zero where an axis is logarithmic."""
        return self.drawable(line.x, line.y)

    def edges(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The lower and the upper edge of the band, as far as they can be drawn."""
        if self.band is None:
            return [], []
        return self.drawable(self.band.x, self.band.low), self.drawable(self.band.x, self.band.high)

    def drawable(self, xs: tuple[float, ...], ys: tuple[float, ...]) -> list[tuple[float, float]]:
        """Those of the points that have a place on the axes."""
        pairs = zip(xs, ys, strict=True)
        # Beyond 1e300 differences overflow.
        return [
            (x, y)
            for x, y in pairs
            if abs(x) < 1e300 and abs(y) < 1e300 and (x > 0 or not self.log_x) and (y > 0 or not self.log_y)
        ]


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
    look: str | None = None

    def __post_init__(self) -> None:
        if self.texts is not None and [len(row) for row in self.texts] != [len(row) for row in self.values]:
            raise BadInput("a grid has words in other cells than numbers; give a text for each number")
        shape = (len(self.values), {len(row) for row in self.values} or {len(self.column_labels)})
        if shape != (len(self.row_labels), {len(self.column_labels)}):
            raise BadInput(
                f"a grid of {len(self.row_labels)} × {len(self.column_labels)} labels has {shape[0]} rows of values; "
                "give a value for each pair"
            )


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
    look: str | None = None

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
    look: str | None = None

    def __post_init__(self) -> None:
        if len(self.tiles) != len(self.row_labels) or {len(row) for row in self.tiles} != {len(self.column_labels)}:
            raise BadInput(
                f"a mosaic of {len(self.row_labels)} × {len(self.column_labels)} labels has tiles in another shape; "
                "give one for each pair"
            )
        if unknown := {tile.name for row in self.tiles for tile in row} - set(self.kinds):
            raise BadInput(f"a mosaic's tiles are called {', '.join(sorted(unknown))}, which are none of its kinds")


Panel = Grid | Curve | HighlightedText | Table | TileGrid | Map | Figure | Tree
"""The kinds."""


@dataclass(frozen=True, kw_only=True)
class Report(View):
    """Views one after another, each made from those before it: queries, keys, their products, what comes of them."""

    kind: ClassVar[str] = "report"
    title: str
    steps: tuple[Panel, ...]
    look: str | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            raise BadInput(f"the walk '{self.title}' has no steps; give it at least one view")


View = Panel | Report
"""The kinds, and walks through them."""
