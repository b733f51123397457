"""Rendering of tile grids: many small images, each underlined in the colour of its category."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    PAD,
    TERMINAL_COLORS,
    WIDTH,
    SvgCanvas,
    escape,
    sanitize,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.rendering.palette import LINE_COLORS
from clearstory.lens.views.formatting import format_cell
from clearstory.lens.views.grids import Tile, TileGrid

LEVELS = 5
"""Shades of a cell; the weakest, below 1 / 10, is blank."""

MAX_SIZE = 64
"""Largest side of a tile in pixels."""


def tile_grid_svg(view: TileGrid) -> str:
    """A tile grid as SVG."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    draw_legend(canvas, view)
    left = PAD + max(text_width(label, 11) for label in view.row_labels) + 10
    size = min(MAX_SIZE, (WIDTH - PAD - left) / len(view.column_labels) - 6)
    pitch = size + 6
    canvas.y += 18
    for number, label in enumerate(view.column_labels):
        if number % max(1, round(18 / pitch)) == 0:
            canvas.text(left + number * pitch + size / 2, canvas.y, label, 11, "soft num", "middle")
    canvas.y += 8
    every = max(1, round(12 / pitch))
    for number, (label, row) in enumerate(zip(view.row_labels, view.tiles, strict=True)):
        if number % every == 0:
            canvas.text(left - 10, canvas.y + size / 2 + 4, label, 11, "soft num", "end")
        for column, tile in enumerate(row):
            score = f"{escape(tile.category)} {format_cell(tile.score)}"
            note = f"{escape(label)}, {escape(view.column_labels[column])}: {score}"
            image = tile_svg(tile, category_class(view, tile.category), left + column * pitch, canvas.y, size)
            canvas.elements.append(f"<g><title>{note}</title>{image}</g>")
        canvas.y += pitch
    canvas.y -= 12
    return canvas.document(f"{len(view.row_labels)} rows of {len(view.column_labels)} small images.")


def tile_svg(tile: Tile, css_class: str, x: float, y: float, size: float) -> str:
    """One tile. Runs of cells with one shade are one stroke, so an image of 256 cells is a few hundred characters."""
    height, width = len(tile.cells), len(tile.cells[0])
    box = f'<rect class="edge-bar" opacity="0.25" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}"/>'
    strokes = []
    for level in range(1, LEVELS + 1):
        runs = []
        for row, cells in enumerate(tile.cells):
            column = 0
            while column < width:
                end = column
                while end < width and cell_level(cells[end]) == level:
                    end += 1
                if end > column:
                    runs.append(f"M{column} {row + 0.5}h{end - column}")
                column = max(end, column + 1)
        if runs:
            strokes.append(
                f'<path class="edge-bar" stroke-width="1.02" opacity="{level / LEVELS:.2g}" d="{"".join(runs)}"/>'
            )
    scaled = f"translate({x:.1f} {y:.1f}) scale({size / width:.4g} {size / height:.4g})"
    underline = (
        f'<rect class="{css_class}" x="{x:.1f}" y="{y + size:.1f}" width="{size:.1f}" height="3"/>' if css_class else ""
    )
    return f'{box}<g transform="{scaled}">{"".join(strokes)}</g>{underline}'


def cell_level(cell: int) -> int:
    """The shade of a cell, 0 to LEVELS.

    >>> [cell_level(cell) for cell in (0, 25, 26, 128, 255)]
    [0, 0, 1, 3, 5]
    """
    return int(cell / 255 * LEVELS + 0.5)


def category_class(view: TileGrid, category: str) -> str:
    """The CSS class of a category's colour; empty for the last category, which has no colour."""
    index = view.categories.index(category)
    return "" if index == len(view.categories) - 1 else f"dot-{index}" if index < LINE_COLORS else "band"


def draw_legend(canvas: SvgCanvas, view: TileGrid) -> None:
    """Draw each category with its colour and its number of tiles."""
    counts = Counter(tile.category for row in view.tiles for tile in row)
    x, canvas.y = float(PAD), canvas.y + 12
    for category in view.categories:
        if not counts[category]:
            continue
        text = truncate_text(f"{category} {counts[category]}", 240, 12)
        if x + 34 + text_width(text, 12) > WIDTH - PAD and x > PAD:
            x, canvas.y = PAD, canvas.y + 20
        css_class = category_class(view, category)
        if css_class:
            canvas.elements.append(
                f'<rect class="{css_class}" x="{x:.1f}" y="{canvas.y - 6:.1f}" width="18" height="3"/>'
            )
        canvas.text(x + (25 if css_class else 0), canvas.y, text, 12, "ink")
        x += (48 if css_class else 23) + text_width(text, 12)
    canvas.y += 4


def tile_grid_terminal(view: TileGrid, width: int = 80) -> RenderableType:
    """A tile grid for the terminal: the first letters of each tile's category, with the score if it fits."""
    gutter = max(len(label) for label in view.row_labels)
    with_score = gutter + 2 + 10 * len(view.column_labels) <= width
    wide = 10 if with_score else 5
    names = "".join(f"{sanitize(label):<{wide}}" for label in view.column_labels)
    lines = [Text(f"{'':>{gutter}}  {names}", style="dim", no_wrap=True)]
    for label, row in zip(view.row_labels, view.tiles, strict=True):
        line = Text(f"{sanitize(label):>{gutter}}  ", no_wrap=True)
        for tile in row:
            index = view.categories.index(tile.category)
            clear = index < len(view.categories) - 1
            text = sanitize(tile.category)[:4] + (f" {tile.score:.2f}" if with_score else "") if clear else "·"
            line.append(f"{text:<{wide}}", style=TERMINAL_COLORS[index % len(TERMINAL_COLORS)] if clear else "dim")
        lines.append(line)
    return with_caption(view.title, view.caption, Group(*lines))
