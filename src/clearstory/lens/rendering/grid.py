"""Rendering of grids: a mark for each number, or words in cells coloured by the numbers.

Marks are squares, darker for larger numbers, or circles, larger for larger numbers. Wide grids with texts are split
into bands of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    PAD,
    WIDTH,
    SvgCanvas,
    escape,
    relative_magnitudes,
    sanitize,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.rendering.highlighted_text import terminal_style
from clearstory.lens.rendering.palette import HEAT_LEVELS, SIGN_COLORS, color_attributes, text_class_on
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.grids import Grid, GridPalette

SHADES = " ░▒▓█"

MAX_MARKS = 100
"""Marks per row and column; a larger grid is reduced to blocks, each shown by its strongest number."""

CSS_CLASSES: dict[GridPalette, str] = {"sequential": "bar", "query": "query", "key": "key", "value": "value"}

TERMINAL_STYLES: dict[GridPalette, str] = {
    "sequential": "blue", "query": "yellow", "key": "cyan", "value": "red", "diverging": "yellow",
}  # fmt: skip


def grid_svg(view: Grid) -> str:
    """A grid as SVG: a mark for each number, hollow below zero, a red −∞ for a masked cell."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    if not view.values or not view.column_labels:
        return canvas.empty_document()
    whole, (view, notes) = view, reduce_grid(view, MAX_MARKS, MAX_MARKS)
    left = PAD + min(150.0, max(text_width(label, 12) for label in view.row_labels)) + 10
    size = min(30.0, (WIDTH - PAD - left) / len(view.column_labels))
    letters = min(12.0, max(6.0, size * 0.75))
    tallest = min(110.0, max(text_width(label, letters) for label in view.column_labels))
    # Labels are rotated by 60 degrees: sin 60° of their length above the squares. Small squares have fewer labels.
    top = canvas.y + tallest * math.sin(math.radians(60)) + 12
    every = math.ceil((letters + 1) / size)
    for number, label in enumerate(view.column_labels[::every]):
        x, y = left + (number * every + 0.6) * size, top - 6
        canvas.elements.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-60)" font-size="{letters:.3g}" class="ink mono">'
            f"{escape(truncate_text(label, tallest, letters))}</text>"
        )
    magnitudes = relative_magnitudes([value for row in view.values for value in row])
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        y = top + number * size
        if number % every == 0:
            shown = truncate_text(label, 150, letters)
            canvas.text(left - 8, y + size / 2 + letters / 3, shown, letters, "ink mono", "end")
        for column, value in enumerate(row):
            mark = mark_svg(view, value, magnitudes[number * len(row) + column], left + column * size, y, size)
            if mark:
                number_text = escape(format_with_unit(value, view.unit))
                note = f"{escape(label)} → {escape(view.column_labels[column])}: {number_text}"
                canvas.elements.append(mark.replace("/>", f"><title>{note}</title></{mark[1 : mark.index(' ')]}>", 1))
    bottom = top + len(view.values) * size
    right = left + len(view.column_labels) * size
    for x1, y1, x2, y2 in ((left, top, right, top), (left, top, left, bottom)):
        canvas.line(x1, y1, x2, y2, "axis")
    canvas.y = bottom + 8
    for note in (*([legend(view)] if needs_legend(view) else []), *notes):
        canvas.y += 18
        canvas.text(left, canvas.y, truncate_text(note, WIDTH - PAD - left, 12), 12)
    return canvas.document(
        f"{len(whole.row_labels)} rows by {len(whole.column_labels)} columns of {view.unit or 'numbers'}."
    )


def mark_svg(view: Grid, value: float, magnitude: float, x: float, y: float, size: float) -> str:
    """The mark of one number in the square at (x, y); empty for zero."""
    if value == -math.inf:
        return masked_svg(x, y, size)
    if not magnitude:
        return ""
    if view.dots:
        return circle_svg(view, value, magnitude, x, y, size)
    if view.palette == "diverging":
        attributes = f'class="dot-{SIGN_COLORS["more" if value > 0 else "less"]}"'
    elif value < 0:
        attributes = 'class="level" fill="none"'
    else:
        attributes = f'class="{CSS_CLASSES[view.palette]}"'
    gap = min(0.5, size / 10)
    return (
        f'<rect {attributes} x="{x + gap:.1f}" y="{y + gap:.1f}" width="{size - 2 * gap:.1f}" '
        f'height="{size - 2 * gap:.1f}" opacity="{0.04 + 0.96 * magnitude:.3g}"/>'
    )


def circle_svg(view: Grid, value: float, magnitude: float, x: float, y: float, size: float) -> str:
    """A circle whose area is the magnitude."""
    radius = (size / 2 - 0.5) * math.sqrt(magnitude)
    if view.palette == "diverging":
        color = SIGN_COLORS["more" if value > 0 else "less"]
        return f'<circle class="dot-{color}" cx="{x + size / 2:.1f}" cy="{y + size / 2:.1f}" r="{radius:.2f}"/>'
    css_class = CSS_CLASSES[view.palette]
    attributes = (
        f'class="{css_class}"' if value > 0 else f'class="edge-{css_class}" stroke-width="{min(1.4, size / 8):.2g}"'
    )
    radius -= 0 if value > 0 else min(0.7, size / 16)
    return f'<circle {attributes} cx="{x + size / 2:.1f}" cy="{y + size / 2:.1f}" r="{max(radius, 0.2):.2f}"/>'


def masked_svg(x: float, y: float, size: float) -> str:
    """The mark of a masked cell: −∞ if it fits, else a short stroke."""
    if size < 14:
        return (
            f'<rect class="value" opacity="0.5" x="{x + size * 0.3:.1f}" y="{y + size / 2 - 0.4:.1f}" '
            f'width="{size * 0.4:.1f}" height="0.8"/>'
        )
    letters = min(11.0, size * 0.5)
    return (
        f'<text class="value" opacity="0.75" text-anchor="middle" font-size="{letters:.3g}" x="{x + size / 2:.1f}" '
        f'y="{y + size / 2 + letters * 0.35:.1f}">−∞</text>'
    )


def format_with_unit(value: float, unit: str) -> str:
    """A number with its unit."""
    return "−∞" if value == -math.inf else f"{format_cell(value)} {unit}".strip()


def needs_legend(view: Grid) -> bool:
    """Whether the marks of a grid need an explanation."""
    return view.dots or view.palette == "diverging"


def legend(view: Grid) -> str:
    """Legend of the marks, with the largest magnitude."""
    sizes = [abs(value) for row in view.values for value in row if math.isfinite(value)]
    largest = format_with_unit(max(sizes, default=0.0), view.unit)
    if view.palette == "diverging":
        return f"Orange: more in B; blue: less in B; the largest difference is {largest}"
    return f"● above zero  ○ below zero; area is magnitude, and the largest is {largest}"


def reduce_grid(view: Grid, rows: int, columns: int) -> tuple[Grid, tuple[str, ...]]:
    """A grid of at most the given numbers of rows and columns, each value the strongest of a block; and a note.

    >>> grid = Grid(title="", row_labels=("a",), column_labels=("b", "c"), values=((1.0, -2.0),))
    >>> small, notes = reduce_grid(grid, 1, 1)
    >>> small.values, notes
    (((-2.0,),), ('Each mark is the strongest of 1 × 2 numbers; a .csv has all of them.',))
    """
    tall, wide = (-(-len(labels) // most) for labels, most in ((view.row_labels, rows), (view.column_labels, columns)))
    if tall <= 1 and wide <= 1:
        return view, ()
    values = tuple(
        tuple(
            largest_magnitude([value for row in view.values[y : y + tall] for value in row[x : x + wide]])
            for x in range(0, len(view.column_labels), wide)
        )
        for y in range(0, len(view.row_labels), tall)
    )
    small = replace(
        view, row_labels=view.row_labels[::tall], column_labels=view.column_labels[::wide], values=values, caption=None
    )
    return small, (f"Each mark is the strongest of {tall} × {wide} numbers; a .csv has all of them.",)


def largest_magnitude(values: Sequence[float]) -> float:
    """The finite number of largest magnitude; the first number if none is finite."""
    finite = [value for value in values if math.isfinite(value)]
    return max(finite, key=abs) if finite else values[0]


def grid_terminal(view: Grid, width: int = 80) -> RenderableType:
    """A grid for the terminal: one or two characters per number, from blank to full, with a minus below zero.

    A few named columns are as wide as their labels.
    """
    title, caption = view.title, view.caption
    gutter = min(18, max((len(label) for label in view.row_labels), default=0))
    available = max(10, width - gutter - 2)
    named = view.column_labels != view.row_labels and sum(max(2, len(x)) + 1 for x in view.column_labels) <= available
    view, notes = reduce_grid(view, MAX_MARKS, available)
    each = 2 if 2 * len(view.column_labels) <= available else 1
    widths = [max(2, len(label)) if named else each for label in view.column_labels]
    gap = " " if named else ""
    magnitudes = relative_magnitudes([value for row in view.values for value in row])
    names = gap.join(sanitize(label).ljust(width) for label, width in zip(view.column_labels, widths, strict=True))
    lines = [Text(f"{'':>{gutter}}  {names}", style="dim")] if named else []
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        line = Text(f"{sanitize(label)[:gutter]:>{gutter}} │", no_wrap=True)
        for column, (value, wide) in enumerate(zip(row, widths, strict=True)):
            line.append(gap if column else "")
            line.append(*mark_terminal(view, value, magnitudes[number * len(row) + column], wide))
        lines.append(line)
    lines += [
        Text(sanitize(note), style="dim")
        for note in (*([legend(view)] if needs_legend(view) and each > 1 else []), *notes)
    ]
    return with_caption(title, caption, Group(*lines))


def mark_terminal(view: Grid, value: float, magnitude: float, width: int) -> tuple[str, str]:
    """The characters of one number, and their style."""
    if value == -math.inf:
        return "−∞"[-min(width, 2) :].ljust(width), "dim red"
    shade = SHADES[math.ceil(magnitude * 4 - 1e-9)]
    if value < 0 and magnitude:
        # A single character has no space for the sign; its colour shows it.
        return ("-" if width > 1 else "") + shade * max(1, width - 1), (
            "blue" if view.palette == "diverging" else "magenta"
        )
    return shade * width, TERMINAL_STYLES[view.palette]


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
            for level, value in zip(row_levels, row, strict=True)
        ]
        for row_levels, row in zip(levels, view.values, strict=True)
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
