"""Views as HTML pages: each panel as a drawing, and its numbers as a table. Pages have no scripts and load no files."""

from __future__ import annotations

import html

from clearstory.lens.rendering.csv_table import column_names, table_rows
from clearstory.lens.rendering.highlighted_text import highlighted_text_html
from clearstory.lens.rendering.svg import render_svg
from clearstory.lens.rendering.svg_canvas import escape
from clearstory.lens.views.base import View
from clearstory.lens.views.highlighted_text import HighlightedText
from clearstory.lens.views.number_format import format_cell
from clearstory.lens.views.report import Panel, Report, panels_of

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
        head, body = "", f"<tr><td>{count:,} cells are too many for a page; a .csv has them all.</td></tr>"
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
