"""Mosaic: many small pictures side by side, each with its name's colour. In SVG and in characters."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import INKS, PAD, WIDTH, Drawing, clean, clip, text_width
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.rendering.terminal import COLOURS, with_caption, safe
from clearstory.lens.views import TileGrid, Tile

LEVELS = 5
"""Strengths of a cell that are told apart; the weakest, under 1 / 10, is left blank."""

LARGEST = 64
"""Pixels of a tile's side."""


def mosaic_svg(view: TileGrid) -> str:
    """A tile for each pair of labels: its cells, darker for more, and a line in its name's colour below."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    key(drawing, view)
    left = PAD + max(text_width(label, 11) for label in view.row_labels) + 10
    size = min(LARGEST, (WIDTH - PAD - left) / len(view.column_labels) - 6)
    step = size + 6
    drawing.y += 18
    for number, label in enumerate(view.column_labels):
        if number % max(1, round(18 / step)) == 0:
            drawing.text(left + number * step + size / 2, drawing.y, label, 11, "soft num", "middle")
    drawing.y += 8
    every = max(1, round(12 / step))
    for number, (label, row) in enumerate(zip(view.row_labels, view.tiles, strict=True)):
        if number % every == 0:
            drawing.text(left - 10, drawing.y + size / 2 + 4, label, 11, "soft num", "end")
        for place, tile in enumerate(row):
            told = f"{clean(label)}, {clean(view.column_labels[place])}: {clean(tile.name)} {cell_text(tile.score)}"
            drawing.parts.append(
                f"<g><title>{told}</title>{tile_svg(tile, ink(view, tile), left + place * step, drawing.y, size)}</g>"
            )
        drawing.y += step
    drawing.y -= 12
    return drawing.done(f"{len(view.row_labels)} rows of {len(view.column_labels)} small pictures.")


def tile_svg(tile: Tile, look: str, x: float, y: float, size: float) -> str:
    """One tile: runs of cells of one strength are one stroke, so a picture of 256 cells is a few hundred characters."""
    height, width = len(tile.cells), len(tile.cells[0])
    box = f'<rect class="edge-bar" opacity="0.25" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}"/>'
    strokes = []
    for level in range(1, LEVELS + 1):
        runs = []
        for row, cells in enumerate(tile.cells):
            column = 0
            while column < width:
                end = column
                while end < width and level_of(cells[end]) == level:
                    end += 1
                if end > column:
                    runs.append(f"M{column} {row + 0.5}h{end - column}")
                column = max(end, column + 1)
        if runs:
            strokes.append(
                f'<path class="edge-bar" stroke-width="1.02" opacity="{level / LEVELS:.2g}" d="{"".join(runs)}"/>'
            )
    scaled = f"translate({x:.1f} {y:.1f}) scale({size / width:.4g} {size / height:.4g})"
    name = f'<rect class="{look}" x="{x:.1f}" y="{y + size:.1f}" width="{size:.1f}" height="3"/>' if look else ""
    return f'{box}<g transform="{scaled}">{"".join(strokes)}</g>{name}'


def level_of(cell: int) -> int:
    """A cell's strength, 0 to LEVELS.

    >>> [level_of(cell) for cell in (0, 25, 26, 128, 255)]
    [0, 0, 1, 3, 5]
    """
    return int(cell / 255 * LEVELS + 0.5)


def ink(view: TileGrid, tile: Tile) -> str:
    """The class of a name's colour; the last kind is what could not be named, and has none."""
    number = view.kinds.index(tile.name)
    return "" if number == len(view.kinds) - 1 else f"dot-{number}" if number < INKS else "band"


def key(drawing: Drawing, view: TileGrid) -> None:
    """Each name with its colour and how many tiles have it."""
    counts = Counter(tile.name for row in view.tiles for tile in row)
    x, drawing.y = float(PAD), drawing.y + 12
    for name in view.kinds:
        if not counts[name]:
            continue
        said = clip(f"{name} {counts[name]}", 240, 12)
        if x + 34 + text_width(said, 12) > WIDTH - PAD and x > PAD:
            x, drawing.y = PAD, drawing.y + 20
        look = ink(view, Tile(name, 0.0, ((0,),)))
        if look:
            drawing.parts.append(f'<rect class="{look}" x="{x:.1f}" y="{drawing.y - 6:.1f}" width="18" height="3"/>')
        drawing.text(x + (25 if look else 0), drawing.y, said, 12, "ink")
        x += (48 if look else 23) + text_width(said, 12)
    drawing.y += 4


def mosaic_text(view: TileGrid, width: int = 80) -> RenderableType:
    """The beginning of each tile's name, and how much it is that where there is room."""
    gutter = max(len(label) for label in view.row_labels)
    whole = gutter + 2 + 10 * len(view.column_labels) <= width
    wide = 10 if whole else 5
    names = "".join(f"{safe(label):<{wide}}" for label in view.column_labels)
    lines = [Text(f"{'':>{gutter}}  {names}", style="dim", no_wrap=True)]
    for label, row in zip(view.row_labels, view.tiles, strict=True):
        line = Text(f"{safe(label):>{gutter}}  ", no_wrap=True)
        for tile in row:
            number = view.kinds.index(tile.name)
            known = number < len(view.kinds) - 1
            said = safe(tile.name)[:4] + (f" {tile.score:.2f}" if whole else "") if known else "·"
            line.append(f"{said:<{wide}}", style=COLOURS[number % len(COLOURS)] if known else "dim")
        lines.append(line)
    return with_caption(view.title, view.caption, Group(*lines))
