"""Draw: a view in the terminal, or in a file of the kind its name says."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clearstory.durable import write_text
from clearstory.errors import UnknownName, nearest
from clearstory.lens.rendering.svg_canvas import clean
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.rendering.svg import svg
from clearstory.lens.views import Curve, Figure, Grid, Map, TileGrid, HighlightedText, Panel, Table, Tree, View, Report

if TYPE_CHECKING:
    from rich.console import RenderableType


def save(view: View, file: Path | str) -> Path:
    """Write a view to a .html, .svg, .csv or .json file. Raises UnknownName for any other suffix."""
    file = Path(file).expanduser()
    suffix = file.suffix.lower()
    if suffix not in WRITERS:
        raise UnknownName(f"a view is not written to '{file.name}'; {nearest(suffix, WRITERS)}")
    write_text(file, WRITERS[suffix](view))
    return file


def to_json(view: View) -> str:
    """All of a view's numbers."""
    return json.dumps(view.to_json(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def to_csv(view: View) -> str:
    """A view's numbers as one table, exact to the last digit; of a walk one table a step, a blank line between two."""
    if isinstance(view, Report):
        return "\n".join(f"{plain_line(step.title)}\n{to_csv(step)}" for step in view.steps)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header(view))
    writer.writerows(records(view))
    return out.getvalue()


def plain_line(text: str) -> str:
    """A text as one quoted cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([text])
    return out.getvalue()


def header(view: Panel) -> list[str]:
    """Names of the columns of `records`."""
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
            return ["row", "column", "name", "score"]
        case Map():
            return ["point", view.x_label, view.y_label, "group", "note"]
        case Figure():
            return ["part", "shape", "parameters of each", "times"]
        case Tree():
            return ["node", "after", "text", view.unit or "value", "fate"]


def records(view: Panel) -> list[list[object]]:
    """A view's numbers, row by row."""
    match view:
        case Table():
            return [list(row) for row in view.rows]
        case Curve():
            return [[line.name, x, y] for line in view.lines for x, y in zip(line.x, line.y, strict=True)]
        case Grid():
            if view.texts is not None:
                return worded(view, view.texts)
            return [[label, *row] for label, row in zip(view.row_labels, view.values, strict=True)]
        case HighlightedText():
            blank = (None,) * len(view.columns)
            return [[span.text, span.value, *(span.facts or blank), span.note] for span in view.spans]
        case TileGrid():
            labels = [(row, column) for row in view.row_labels for column in view.column_labels]
            tiles = [tile for row in view.tiles for tile in row]
            return [[*pair, tile.name, tile.score] for pair, tile in zip(labels, tiles, strict=True)]
        case Map():
            groups = view.groups or ("",) * (1 + max((point.group for point in view.points), default=0))
            return [[each.label, each.x, each.y, groups[each.group], each.note] for each in view.points]
        case Figure():
            return [[box.name, box.shape, box.parameters, view.times(box)] for box in view.boxes]
        case Tree():
            return [[at, node.parent, node.text, node.value, node.fate] for at, node in enumerate(view.nodes)]


def worded(view: Grid, texts: tuple[tuple[str, ...], ...]) -> list[list[object]]:
    """A row for each cell of a grid that has words."""
    return [
        [label, column, value, text.replace("\n", " ")]
        for label, values, words in zip(view.row_labels, view.values, texts, strict=True)
        for column, value, text in zip(view.column_labels, values, words, strict=True)
    ]


def to_html(view: View) -> str:
    """One page that needs no other file: each drawing, and its numbers as a table. No script runs in it."""
    steps = view.steps if isinstance(view, Report) else (view,)
    head = f"<h1>{clean(view.title)}</h1><p>{clean(view.caption or '')}</p>" if isinstance(view, Report) else ""
    return PAGE.format(title=clean(view.title), body=head + "".join(map(part_html, steps)))


def notebook_frame(view: View) -> str:
    """The page in a frame, for a notebook: its styles touch nothing around it, and it runs no script there either."""
    page = html.escape(to_html(view))
    return f'<iframe srcdoc="{page}" sandbox="" style="width:100%;height:560px;border:0"></iframe>'


MOST_CELLS = 20_000
"""Cells of a table in a page: 1 MB, which a browser opens at once."""


def part_html(view: Panel) -> str:
    """A drawing, and its numbers as a table that can be opened."""
    head = "".join(f"<th scope=col>{clean(name)}</th>" for name in header(view))
    told = records(view)
    if (count := sum(map(len, told))) > MOST_CELLS:
        head, rows = "", f"<tr><td>{count:,} cells are too many for a page; a .csv has them all.</td></tr>"
    else:
        rows = "".join("<tr>" + "".join(cell(each) for each in row) + "</tr>" for row in told)
    if isinstance(view, HighlightedText):
        from clearstory.lens.rendering.highlighted_text import spans_html

        drawing = spans_html(view)
    else:
        drawing = svg(view)
    return PART.format(title=clean(view.title), drawing=drawing, head=head, rows=rows)


def cell(value: object) -> str:
    """A cell of the page's table; the whole number stands in its title."""
    if isinstance(value, float):
        return f'<td class=n title="{html.escape(repr(value))}">{cell_text(value)}</td>'
    number = " class=n" if isinstance(value, int) else ""
    return f"<td{number}>{clean(cell_text(value))}</td>"


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

PART = """{drawing}
<details><summary>Numbers</summary>
<div class="wide"><table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
</details>
"""


WRITERS: dict[str, Callable[[View], str]] = {".html": to_html, ".svg": svg, ".csv": to_csv, ".json": to_json}
"""From a file's suffix to what writes it."""


def to_terminal(view: View, width: int = 80) -> RenderableType:
    """A view as rich draws it; what it holds is shown, never obeyed."""
    from clearstory.lens.rendering.terminal import curve_text, table_text

    match view:
        case Table():
            return table_text(view, width)
        case Curve():
            return curve_text(view, width)
        case Grid():
            if view.texts is not None:
                from clearstory.lens.rendering.text_grid import worded_text

                return worded_text(view, view.texts, width)
            from clearstory.lens.rendering.grid import grid_text

            return grid_text(view, width)
        case HighlightedText():
            from clearstory.lens.rendering.highlighted_text import Coloured

            return Coloured(view)
        case TileGrid():
            from clearstory.lens.rendering.tile_grid import mosaic_text

            return mosaic_text(view, width)
        case Map():
            from clearstory.lens.rendering.map import map_text

            return map_text(view, width)
        case Figure():
            from clearstory.lens.rendering.figure import figure_text

            return figure_text(view)
        case Tree():
            from clearstory.lens.rendering.tree import tree_text

            return tree_text(view, width)
        case Report():
            from rich.console import Group
            from rich.padding import Padding

            from clearstory.lens.rendering.terminal import with_caption

            steps = (Padding(to_terminal(step, width), (0, 0, 1, 0)) for step in view.steps)
            return with_caption(view.title, view.caption, Group(*steps))
