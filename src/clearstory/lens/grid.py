"""Grid: numbers as a field of squares, darker for more. In SVG and in characters."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.drawing import PAD, WIDTH, Drawing, clean, clip, text_width
from clearstory.lens.scales import cell_text, shares
from clearstory.lens.terminal import framed, safe
from clearstory.lens.views import Grid

SHADES = " ░▒▓█"


def grid_svg(view: Grid) -> str:
    """A square for each number, as strong as its share of the largest; those below zero are outlines."""
    drawing = Drawing(view.title, [])
    drawing.head(view.look)
    if not view.values or not view.column_labels:
        drawing.y += 24
        drawing.text(PAD, drawing.y, "There is nothing to draw.", 13)
        return drawing.done(view.title)
    widest = max(text_width(label, 12) for label in view.row_labels)
    left = PAD + min(150.0, widest) + 10
    size = min(30.0, (WIDTH - PAD - left) / len(view.column_labels))
    letters = min(12.0, max(5.0, size * 0.75))
    tallest = min(110.0, max(text_width(label, letters) for label in view.column_labels))
    # Labels lean at 60 degrees: sin 60° of their length above the squares.
    top = drawing.y + tallest * math.sin(math.radians(60)) + 12
    for number, label in enumerate(view.column_labels):
        x, y = left + (number + 0.6) * size, top - 6
        drawing.parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-60)" font-size="{letters:.3g}" class="ink mono">'
            f"{clean(clip(label, tallest, letters))}</text>"
        )
    strengths = shares([value for row in view.values for value in row])
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        y = top + number * size
        drawing.text(left - 8, y + size / 2 + letters / 3, clip(label, 150, letters), letters, "ink mono", "end")
        for place, value in enumerate(row):
            strength = strengths[number * len(row) + place]
            if not strength:
                continue
            below = ' class="level" fill="none"' if value < 0 else ' class="bar"'
            drawing.parts.append(
                f'<rect{below} x="{left + place * size + 0.5:.1f}" y="{y + 0.5:.1f}" width="{size - 1:.1f}" '
                f'height="{size - 1:.1f}" opacity="{0.04 + 0.96 * strength:.3g}"><title>'
                f"{clean(label)} → {clean(view.column_labels[place])}: {cell_text(value)} {clean(view.unit)}"
                "</title></rect>"
            )
    bottom = top + len(view.values) * size
    right = left + len(view.column_labels) * size
    for x1, y1, x2, y2 in ((left, top, right, top), (left, top, left, bottom)):
        drawing.line(x1, y1, x2, y2, "axis")
    drawing.y = bottom + 8
    return drawing.done(
        f"{len(view.row_labels)} rows by {len(view.column_labels)} columns of {view.unit or 'numbers'}."
    )


def grid_text(view: Grid) -> RenderableType:
    """Two characters for each number, from blank to full; as many as its label has where a few columns are named."""
    named = view.column_labels != view.row_labels and sum(map(len, view.column_labels)) <= 60
    widths = [max(2, len(label)) if named else 2 for label in view.column_labels]
    gap = " " if named else ""
    strengths = shares([value for row in view.values for value in row])
    gutter = min(18, max((len(label) for label in view.row_labels), default=0))
    names = gap.join(safe(label).ljust(width) for label, width in zip(view.column_labels, widths, strict=True))
    lines = [Text(f"{'':>{gutter}}  {names}", style="dim")] if named else []
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        part = strengths[number * len(row) : (number + 1) * len(row)]
        shades = (SHADES[math.ceil(share * 4 - 1e-9)] for share in part)
        squares = gap.join(shade * width for shade, width in zip(shades, widths, strict=True))
        lines.append(Text(f"{safe(label)[:gutter]:>{gutter}} │").append(squares, style="blue"))
    return framed(view.title, view.look, Group(*lines))
