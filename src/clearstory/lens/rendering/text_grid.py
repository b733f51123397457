"""Rendering of grids with texts: words in cells, coloured by the numbers. Wide grids are split into column bands."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.highlighted_text import terminal_style
from clearstory.lens.rendering.palette import HEAT_LEVELS, color_attributes, text_class_on
from clearstory.lens.rendering.scales import relative_magnitudes
from clearstory.lens.rendering.svg_canvas import PAD, WIDTH, SvgCanvas, escape, text_width, truncate_text
from clearstory.lens.rendering.terminal_canvas import sanitize, with_caption
from clearstory.lens.views.grid import Grid
from clearstory.lens.views.number_format import format_cell

Texts = tuple[tuple[str, ...], ...]

CELL_WIDTH, CELL_HEIGHT = 84.0, 21.0
FONT_SIZE = 11.0

COLUMN = 12
"""Characters of a cell in the terminal."""


def cell_colors(view: Grid) -> list[list[str]]:
    """The colour class of each cell, by its magnitude relative to the largest; differences have one for each sign."""
    magnitudes = iter(relative_magnitudes([value for row in view.values for value in row]))
    levels = [[math.ceil(next(magnitudes) * (HEAT_LEVELS - 1) - 1e-9) for _ in row] for row in view.values]
    return [
        [
            f"heat-{level}"
            if view.palette != "diverging" or not level
            else f"{'more' if value > 0 else 'less'}-{level}"
            for level, value in zip(own, row, strict=True)
        ]
        for own, row in zip(levels, view.values, strict=True)
    ]


def column_bands(view: Grid, most: int) -> Iterator[range]:
    """The columns in bands of at most `most`."""
    columns = len(view.column_labels)
    for start in range(0, columns, max(1, most)):
        yield range(start, min(start + max(1, most), columns))


def text_grid_svg(view: Grid, texts: Texts) -> str:
    """A grid with texts as SVG: a box for each cell with its word, and the annotation on the right."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    left = PAD + min(150.0, max((text_width(label, FONT_SIZE) for label in view.row_labels), default=0.0)) + 10
    colors = cell_colors(view)
    for columns in column_bands(view, int((WIDTH - PAD - left) / CELL_WIDTH)):
        canvas.y += 22
        for number, column in enumerate(columns):
            label = truncate_text(view.column_labels[column], CELL_WIDTH - 6, 12)
            canvas.text(left + number * CELL_WIDTH + 4, canvas.y, label, 12, "ink mono", bold=True)
        canvas.y += 8
        for label, values, words, row_colors in zip(view.row_labels, view.values, texts, colors, strict=True):
            shown = truncate_text(label, 150, FONT_SIZE)
            canvas.text(left - 8, canvas.y + CELL_HEIGHT - 6.5, shown, FONT_SIZE, "soft num", "end")
            for number, column in enumerate(columns):
                note = f"{label}, {view.column_labels[column]}: {format_cell(values[column])} {view.unit}"
                draw_cell(canvas, left + number * CELL_WIDTH, words[column], row_colors[column], note)
            canvas.y += CELL_HEIGHT
        canvas.y += 8
    return canvas.document(f"{len(view.row_labels)} rows by {len(view.column_labels)} columns of words.")


def draw_cell(canvas: SvgCanvas, x: float, text: str, color_class: str, note: str) -> None:
    """Draw one cell; its full text and number are its tooltip."""
    word, _, annotation = text.partition("\n")
    title = escape(f"{word} {annotation}".strip() + f" ({note.strip()})")
    canvas.elements.append(
        f'<rect {color_attributes(color_class)} x="{x + 0.5:.1f}" y="{canvas.y + 0.5:.1f}" '
        f'width="{CELL_WIDTH - 1:.1f}" height="{CELL_HEIGHT - 1:.1f}" rx="2"><title>{title}</title></rect>'
    )
    css_class = f"mono {text_class_on(color_class)}"
    available = CELL_WIDTH - 8 - (text_width(annotation, 9) + 5 if annotation else 0)
    shown = truncate_text(word, available, FONT_SIZE)
    for words, size, at, end in ((shown, FONT_SIZE, x + 4, ""), (annotation, 9, x + CELL_WIDTH - 4, "end")):
        if words:
            anchor = f' text-anchor="{end}"' if end else ""
            canvas.elements.append(
                f'<text x="{at:.1f}" y="{canvas.y + CELL_HEIGHT - 6.5:.1f}" font-size="{size:g}" class="{css_class}" '
                f'pointer-events="none"{anchor}>{escape(words)}</text>'
            )


def text_grid_terminal(view: Grid, texts: Texts, width: int) -> RenderableType:
    """A grid with texts for the terminal."""
    gutter = min(24, max((cell_len(sanitize(label)) for label in view.row_labels), default=0))
    colors, lines = cell_colors(view), []
    for columns in column_bands(view, (width - gutter - 2) // (COLUMN + 1)):
        header = " ".join(fit_cell(view.column_labels[column]) for column in columns)
        lines.append(Text(f"{'':>{gutter}}  {header}", style="bold"))
        for label, words, row_colors in zip(view.row_labels, texts, colors, strict=True):
            name = set_cell_size(sanitize(label), min(gutter, cell_len(sanitize(label))))
            line = Text(f"{' ' * (gutter - cell_len(name))}{name} │", style="dim")
            for column in columns:
                style = terminal_style(row_colors[column])
                line.append(fit_cell(*words[column].split("\n", 1)), style=style).append(" ")
            lines.append(line)
        lines.append(Text(""))
    return with_caption(view.title, view.caption, Group(*lines[:-1]))


def fit_cell(word: str, annotation: str = "") -> str:
    """A word and its annotation in exactly the width of a cell."""
    word, annotation = sanitize(word), sanitize(annotation)
    available = COLUMN - (len(annotation) + 1 if annotation else 0)
    word = word if cell_len(word) <= available else set_cell_size(word, available - 1) + "…"
    return set_cell_size(word, available) + (f" {annotation}" if annotation else "")
