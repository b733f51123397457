"""Rendering of tables: rows of cells, one column as bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    PAD,
    WIDTH,
    SvgCanvas,
    relative_magnitudes,
    sanitize,
    text_bar,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.grids import Table

BAR_WIDTH = 150.0
"""Least width of a column of bars in pixels."""


def table_svg(view: Table) -> str:
    """A table as SVG."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    cells = [[format_cell(cell) for cell in row] for row in view.rows]
    numeric = numeric_columns(view)
    widths = [
        min(260.0, max([text_width(name, 12), *(text_width(row[i], 13) for row in cells)]) + 22)
        for i, name in enumerate(view.columns)
    ]
    bar = view.columns.index(view.bar) if view.bar is not None else None
    widths = distribute_widths(widths, numeric, bar)
    canvas.y += 18
    x = float(PAD)
    starts = []
    for i, name in enumerate(view.columns):
        starts.append(x)
        right = numeric[i] and i != bar
        at = x + widths[i] - 14 if right else x
        canvas.text(at, canvas.y, truncate_text(name, widths[i], 12), 12, "soft", "end" if right else "start")
        x += widths[i]
    canvas.y += 8
    canvas.line(PAD, canvas.y, WIDTH - PAD, canvas.y, "axis")
    fractions = relative_magnitudes(view.column(view.bar)) if view.bar is not None else [0.0] * len(cells)
    for row, fraction in zip(cells, fractions, strict=True):
        middle = canvas.y + 13
        for i, text in enumerate(row):
            if i == bar:
                draw_bar(canvas, starts[i], middle, (widths[i] - 68) * fraction, text)
            elif numeric[i]:
                canvas.text(starts[i] + widths[i] - 14, middle + 4.5, text, 13, "soft num", "end")
            else:
                css_class = "ink mono" if i == 0 else "ink"
                canvas.text(starts[i], middle + 4.5, truncate_text(text, widths[i] - 8, 13), 13, css_class)
        canvas.y += 25
        canvas.line(PAD, canvas.y, WIDTH - PAD, canvas.y, "rule")
    canvas.y -= 8
    return canvas.document(f"{len(view.rows)} rows: {', '.join(view.columns)}.")


def numeric_columns(view: Table) -> list[bool]:
    """Whether each column holds numbers only."""
    return [all(isinstance(cell, int | float | None) for cell in view.column(name)) for name in view.columns]


def draw_bar(canvas: SvgCanvas, x: float, middle: float, length: float, text: str) -> None:
    """Draw a bar and its number; an outline for a number below zero."""
    css_class = 'class="level" fill="none"' if text.startswith("-") else 'class="bar"'
    canvas.elements.append(
        f'<rect {css_class} x="{x:.1f}" y="{middle - 7:.1f}" width="{max(length, 1):.1f}" height="14" rx="2"/>'
    )
    canvas.text(x + max(length, 1) + 7, middle + 4.5, text, 12.5, "ink num")


def distribute_widths(widths: Sequence[float], numeric: Sequence[bool], bar: int | None) -> list[float]:
    """Column widths that fit the page: numbers keep theirs, text columns shrink if needed, bars get the rest.

    >>> distribute_widths([100.0, 60.0, 80.0], [False, True, True], 2)
    [100.0, 60.0, 552.0]
    >>> distribute_widths([260.0, 260.0, 260.0], [False] * 3, None)
    [237.3..., 237.3..., 237.3...]
    """
    available = float(WIDTH - 2 * PAD)
    fixed = [at for at, number in enumerate(numeric) if number and at != bar]
    texts = [at for at, number in enumerate(numeric) if not number and at != bar]
    available -= sum(widths[at] for at in fixed)
    wanted = sum(widths[at] for at in texts)
    bar_width = 0.0 if bar is None else max(BAR_WIDTH, available - wanted)
    scale = min(1.0, max(60.0 * len(texts), available - bar_width) / wanted) if wanted else 1.0
    return [bar_width if at == bar else width * scale if at in texts else width for at, width in enumerate(widths)]


def table_terminal(view: Table, width: int) -> RenderableType:
    """A table for the terminal, with bars in a separate column."""
    rows = [[sanitize(format_cell(cell)) for cell in row] for row in view.rows]
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for name, number in zip(view.columns, numeric_columns(view), strict=True):
        table.add_column(Text(sanitize(name)), justify="right" if number else "left", no_wrap=True)
    used = sum(max([len(name), *(len(row[i]) for row in rows)]) + 2 for i, name in enumerate(view.columns))
    available = max(8, min(40, width - used - 2))
    fractions = relative_magnitudes(view.column(view.bar)) if view.bar is not None else []
    if view.bar is not None:
        table.add_column("", no_wrap=True)
    for i, row in enumerate(rows):
        cells = [Text(text) for text in row]
        if view.bar is not None:
            negative = row[view.columns.index(view.bar)].startswith("-")
            cells.append(Text(text_bar(fractions[i], available), style="red" if negative else "blue"))
        table.add_row(*cells)
    return with_caption(view.title, view.caption, table)
