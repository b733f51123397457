"""Grid: numbers as a field of squares, darker for more, or of dots, larger for more. In SVG and in characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import PAD, SIGNS, WIDTH, Drawing, clean, clip, text_width
from clearstory.lens.rendering.scales import cell_text, shares
from clearstory.lens.rendering.terminal import with_caption, safe
from clearstory.lens.views import Grid

GRAY_LEVELS = " ░▒▓█"

MOST = 100
"""Marks side by side; of more numbers, each mark is the strongest of a block."""


def grid_svg(view: Grid) -> str:
    """A mark for each number; those below zero are outlines, and what nobody may look at is −∞ in red."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    if not view.values or not view.column_labels:
        drawing.y += 24
        drawing.text(PAD, drawing.y, "There is nothing to draw.", 13)
        return drawing.done(view.title)
    whole, (view, notes) = view, reduced(view, MOST, MOST)
    widest = max(text_width(label, 12) for label in view.row_labels)
    left = PAD + min(150.0, widest) + 10
    size = min(30.0, (WIDTH - PAD - left) / len(view.column_labels))
    letters = min(12.0, max(6.0, size * 0.75))
    tallest = min(110.0, max(text_width(label, letters) for label in view.column_labels))
    # Labels lean at 60 degrees: sin 60° of their length above the squares. Not all have room where these are small.
    top = drawing.y + tallest * math.sin(math.radians(60)) + 12
    every = math.ceil((letters + 1) / size)
    for number, label in enumerate(view.column_labels[::every]):
        x, y = left + (number * every + 0.6) * size, top - 6
        drawing.parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-60)" font-size="{letters:.3g}" class="ink mono">'
            f"{clean(clip(label, tallest, letters))}</text>"
        )
    strengths = shares([value for row in view.values for value in row])
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        y = top + number * size
        if number % every == 0:
            drawing.text(left - 8, y + size / 2 + letters / 3, clip(label, 150, letters), letters, "ink mono", "end")
        for place, value in enumerate(row):
            mark = mark_svg(view, value, strengths[number * len(row) + place], left + place * size, y, size)
            if mark:
                told = f"{clean(label)} → {clean(view.column_labels[place])}: {clean(number_text(value, view.unit))}"
                drawing.parts.append(mark.replace("/>", f"><title>{told}</title></{mark[1 : mark.index(' ')]}>", 1))
    bottom = top + len(view.values) * size
    right = left + len(view.column_labels) * size
    for x1, y1, x2, y2 in ((left, top, right, top), (left, top, left, bottom)):
        drawing.line(x1, y1, x2, y2, "axis")
    drawing.y = bottom + 8
    for note in (*([legend(view)] if view.dots or view.ink == "apart" else []), *notes):
        drawing.y += 18
        drawing.text(left, drawing.y, clip(note, WIDTH - PAD - left, 12), 12)
    return drawing.done(
        f"{len(whole.row_labels)} rows by {len(whole.column_labels)} columns of {view.unit or 'numbers'}."
    )


def mark_svg(view: Grid, value: float, strength: float, x: float, y: float, size: float) -> str:
    """One number's mark in the square at (x, y); nothing for none."""
    if value == -math.inf:
        return forbidden_svg(x, y, size)
    if not strength:
        return ""
    if view.dots:
        # Area, not radius: a number twice as large is to look twice as large.
        radius = (size / 2 - 0.5) * math.sqrt(strength)
        if view.ink == "apart":
            sign = SIGNS["more" if value > 0 else "less"]
            return f'<circle class="dot-{sign}" cx="{x + size / 2:.1f}" cy="{y + size / 2:.1f}" r="{radius:.2f}"/>'
        look = (
            f'class="{view.ink}"' if value > 0 else f'class="edge-{view.ink}" stroke-width="{min(1.4, size / 8):.2g}"'
        )
        radius -= 0 if value > 0 else min(0.7, size / 16)
        return f'<circle {look} cx="{x + size / 2:.1f}" cy="{y + size / 2:.1f}" r="{max(radius, 0.2):.2f}"/>'
    below = 'class="level" fill="none"' if value < 0 else f'class="{view.ink}"'
    if view.ink == "apart":
        below = f'class="dot-{SIGNS["more" if value > 0 else "less"]}"'
    gap = min(0.5, size / 10)
    return (
        f'<rect {below} x="{x + gap:.1f}" y="{y + gap:.1f}" width="{size - 2 * gap:.1f}" '
        f'height="{size - 2 * gap:.1f}" opacity="{0.04 + 0.96 * strength:.3g}"/>'
    )


def forbidden_svg(x: float, y: float, size: float) -> str:
    """−∞ where there is room to write it, else a short stroke."""
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


def number_text(value: float, unit: str) -> str:
    """A number and its unit."""
    return "−∞" if value == -math.inf else f"{cell_text(value)} {unit}".strip()


def legend(view: Grid) -> str:
    """What the dots mean, and how much the largest is."""
    sizes = [abs(value) for row in view.values for value in row if math.isfinite(value)]
    most = number_text(max(sizes, default=0.0), view.unit)
    if view.ink == "apart":
        return f"Orange: more in B; blue: less in B; the largest difference is {most}"
    return f"● above zero  ○ below zero; area is size, and the largest is {most}"


def reduced(view: Grid, rows: int, columns: int) -> tuple[Grid, tuple[str, ...]]:
    """A grid of at most so many marks: each the strongest number of a block; and what is to be said about that.

    >>> small, notes = reduced(Grid(title="", row_labels=("a",), column_labels=("b", "c"), values=((1.0, -2.0),)), 1, 1)
    >>> small.values, notes
    (((-2.0,),), ('Each mark is the strongest of 1 × 2 numbers; a .csv has all of them.',))
    """
    tall, wide = (-(-len(labels) // most) for labels, most in ((view.row_labels, rows), (view.column_labels, columns)))
    if tall <= 1 and wide <= 1:
        return view, ()
    values = tuple(
        tuple(
            strongest([value for row in view.values[y : y + tall] for value in row[x : x + wide]])
            for x in range(0, len(view.column_labels), wide)
        )
        for y in range(0, len(view.row_labels), tall)
    )
    small = replace(
        view, row_labels=view.row_labels[::tall], column_labels=view.column_labels[::wide], values=values, caption=None
    )
    return small, (f"Each mark is the strongest of {tall} × {wide} numbers; a .csv has all of them.",)


def strongest(values: Sequence[float]) -> float:
    """The number of largest size; -inf where there is no other."""
    finite = [value for value in values if math.isfinite(value)]
    return max(finite, key=abs) if finite else values[0]


def grid_text(view: Grid, width: int = 80) -> RenderableType:
    """Two characters for each number where there is room, from blank to full, a minus before those below zero; as many
    as its label has where a few columns are named.
    """
    title, look = view.title, view.caption
    gutter = min(18, max((len(label) for label in view.row_labels), default=0))
    room = max(10, width - gutter - 2)
    named = view.column_labels != view.row_labels and sum(max(2, len(x)) + 1 for x in view.column_labels) <= room
    view, notes = reduced(view, MOST, room)
    each = 2 if 2 * len(view.column_labels) <= room else 1
    widths = [max(2, len(label)) if named else each for label in view.column_labels]
    gap = " " if named else ""
    strengths = shares([value for row in view.values for value in row])
    names = gap.join(safe(label).ljust(width) for label, width in zip(view.column_labels, widths, strict=True))
    lines = [Text(f"{'':>{gutter}}  {names}", style="dim")] if named else []
    for number, (label, row) in enumerate(zip(view.row_labels, view.values, strict=True)):
        line = Text(f"{safe(label)[:gutter]:>{gutter}} │", no_wrap=True)
        for place, (value, wide) in enumerate(zip(row, widths, strict=True)):
            line.append(gap if place else "")
            line.append(*mark_text(view, value, strengths[number * len(row) + place], wide))
        lines.append(line)
    lines += [
        Text(safe(note), style="dim")
        for note in (*([legend(view)] if (view.dots or view.ink == "apart") and each > 1 else []), *notes)
    ]
    return with_caption(title, look, Group(*lines))


STYLES = {"bar": "blue", "query": "yellow", "key": "cyan", "value": "red", "apart": "yellow"}


def mark_text(view: Grid, value: float, strength: float, width: int) -> tuple[str, str]:
    """One number in so many characters, and their style."""
    if value == -math.inf:
        return "−∞"[-min(width, 2) :].ljust(width), "dim red"
    shade = GRAY_LEVELS[math.ceil(strength * 4 - 1e-9)]
    if value < 0 and strength:
        # One character alone has no room for its sign, which its colour then says.
        return ("-" if width > 1 else "") + shade * max(1, width - 1), "blue" if view.ink == "apart" else "magenta"
    return shade * width, STYLES[view.ink]
