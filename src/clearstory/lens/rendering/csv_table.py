"""Views as CSV: their numbers as one table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from clearstory.lens.views.base import View
from clearstory.lens.views.curve import Curve
from clearstory.lens.views.figure import Figure
from clearstory.lens.views.grid import Grid
from clearstory.lens.views.highlighted_text import HighlightedText
from clearstory.lens.views.map import Map
from clearstory.lens.views.report import Panel, Report, panels_of
from clearstory.lens.views.table import Table
from clearstory.lens.views.tile_grid import TileGrid
from clearstory.lens.views.tree import Tree


def render_csv(view: View) -> str:
    """A view's numbers as one table, in full precision; of a report one table per panel, separated by blank lines."""
    if isinstance(view, Report):
        return "\n".join(f"{csv_lines([[panel.title]])}{render_csv(panel)}" for panel in view.panels)
    [panel] = panels_of(view)
    return csv_lines([column_names(panel), *table_rows(panel)])


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells as lines of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def column_names(view: Panel) -> list[str]:
    """The column names of `table_rows`."""
    match view:
        case Table():
            return list(view.columns)
        case Curve():
            return ["line", view.x_label, view.y_label]
        case Grid():
            return ["", *view.column_labels] if view.texts is None else ["row", "column", view.unit or "value", "text"]
        case HighlightedText():
            return ["text", view.unit or "value", *view.columns, "note"]
        case TileGrid():
            return ["row", "column", "category", "score"]
        case Map():
            return ["point", view.x_label, view.y_label, "group", "note"]
        case Figure():
            return ["component", "shape", "parameters", "times"]
        case Tree():
            return ["node", "parent", "text", view.unit or "value", "status"]


def table_rows(view: Panel) -> list[list[object]]:
    """A view's numbers, row by row."""
    match view:
        case Table():
            return [list(row) for row in view.rows]
        case Curve():
            return [[line.name, x, y] for line in view.lines for x, y in zip(line.x, line.y, strict=True)]
        case Grid():
            if view.texts is not None:
                return text_grid_rows(view, view.texts)
            return [[label, *row] for label, row in zip(view.row_labels, view.values, strict=True)]
        case HighlightedText():
            blank = (None,) * len(view.columns)
            return [[span.text, span.value, *(span.cells or blank), span.note] for span in view.spans]
        case TileGrid():
            labels = [(row, column) for row in view.row_labels for column in view.column_labels]
            tiles = [tile for row in view.tiles for tile in row]
            return [[*pair, tile.category, tile.score] for pair, tile in zip(labels, tiles, strict=True)]
        case Map():
            groups = view.groups or ("",) * (1 + max((point.group for point in view.points), default=0))
            return [[each.label, each.x, each.y, groups[each.group], each.note] for each in view.points]
        case Figure():
            return [[box.name, box.shape, box.parameters, view.repeats(box)] for box in view.boxes]
        case Tree():
            return [[at, node.parent, node.text, node.value, node.status] for at, node in enumerate(view.nodes)]


def text_grid_rows(view: Grid, texts: tuple[tuple[str, ...], ...]) -> list[list[object]]:
    """One row for each cell of a grid with texts."""
    return [
        [label, column, value, text.replace("\n", " ")]
        for label, values, words in zip(view.row_labels, view.values, texts, strict=True)
        for column, value, text in zip(view.column_labels, values, words, strict=True)
    ]
