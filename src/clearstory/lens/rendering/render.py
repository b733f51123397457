"""Views in a file format: `render(view, "svg")`, or written to a file with the suffix of the format.

An HTML page shows each panel as a drawing and its numbers as a table; it has no scripts and loads no files. CSV is the
numbers as one table per panel.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clearstory.durable import write_text
from clearstory.durable.paths import expand_home
from clearstory.errors import UnknownName, nearest
from clearstory.lens.rendering.canvas import escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.highlighted_text import highlighted_text_html
from clearstory.lens.views.base import View
from clearstory.lens.views.diagrams import Figure, Tree
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.grids import Grid, Table, TileGrid
from clearstory.lens.views.plots import Curve, Map
from clearstory.lens.views.report import Panel, Report, panels_of
from clearstory.lens.views.text import HighlightedText


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


MAX_CELLS = 20_000
"""Most table cells on a page: 1 MB, which a browser opens at once."""


def render_html(view: View) -> str:
    """A view as one HTML page."""
    header = f"<h1>{escape(view.title)}</h1><p>{escape(view.caption or '')}</p>" if isinstance(view, Report) else ""
    return PAGE.format(title=escape(view.title), body=header + "".join(map(panel_html, panels_of(view))))


def notebook_frame(view: View) -> str:
    """The page in a sandboxed iframe for a notebook: its styles do not affect the notebook."""
    page = html.escape(render_html(view))
    return f'<iframe srcdoc="{page}" sandbox="" style="width:100%;height:560px;border:0"></iframe>'


def panel_html(view: Panel) -> str:
    """A drawing, and its numbers in a table that can be opened."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in column_names(view))
    rows = table_rows(view)
    if (count := sum(map(len, rows))) > MAX_CELLS:
        head, body = "", f"<tr><td>{count:,} cells are too many for a page; a .csv file contains all of them.</td></tr>"
    else:
        body = "".join("<tr>" + "".join(cell_html(each) for each in row) + "</tr>" for row in rows)
    drawing = highlighted_text_html(view) if isinstance(view, HighlightedText) else render_svg(view)
    return PANEL.format(title=escape(view.title), drawing=drawing, head=head, rows=body)


def cell_html(value: object) -> str:
    """A table cell; a float's full precision is its tooltip."""
    if isinstance(value, float):
        return f'<td class=n title="{html.escape(repr(value))}">{format_cell(value)}</td>'
    number = " class=n" if isinstance(value, int) else ""
    return f"<td{number}>{escape(format_cell(value))}</td>"


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --page: #f6f7f9; --text: #1b1f24; --edge: #e4e7eb; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #0d0f13; --text: #e9edf2; --edge: #2b313a; }} }}
body {{ background: var(--page); color: var(--text); font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 760px; padding: 0 1rem; }}
svg {{ max-width: 100%; height: auto; border: 1px solid var(--edge); border-radius: 7px; }}
details {{ margin: 1rem 0; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--edge); white-space: pre; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<main>
{body}</main>
</html>
"""

PANEL = """{drawing}
<details><summary>Numbers</summary>
<div class="wide"><table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
</details>
"""


def render_json(view: View) -> str:
    """A view as JSON, with all of its numbers."""
    return json.dumps(view.to_json(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[View], str]] = {
    "html": render_html,
    "svg": render_svg,
    "csv": render_csv,
    "json": render_json,
}
"""From the name of a file format to the function that renders a view in it."""


def render(view: View, format: str) -> str:
    """A view as text in one of FORMATS. Raises UnknownName for any other format."""
    if format not in FORMATS:
        raise UnknownName(f"unknown format '{format}' of views; {nearest(format, FORMATS)}")
    return FORMATS[format](view)


def format_of(file: Path | str) -> str:
    """The format by the suffix of a file name. Raises UnknownName for an unknown suffix."""
    suffix = Path(file).suffix.lower()
    if suffix.removeprefix(".") not in FORMATS:
        suffixes = [f".{name}" for name in FORMATS]
        raise UnknownName(f"a view cannot be written to '{Path(file).name}'; {nearest(suffix, suffixes)}")
    return suffix.removeprefix(".")


def save_view(view: View, file: Path | str) -> Path:
    """Write a view to a .html, .svg, .csv or .json file. Raises UnknownName for any other suffix."""
    file = expand_home(file)
    write_text(file, render(view, format_of(file)))
    return file
