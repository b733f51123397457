"""Worded: a grid with words in its cells, coloured by its numbers. In SVG and in characters.

A grid that is wider than the paper goes on below, its rows named again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import HEATS, PAD, WIDTH, Drawing, clean, clip, letters_on, shade_svg, text_width
from clearstory.lens.rendering.scales import cell_text, shares
from clearstory.lens.rendering.highlighted_text import token_style
from clearstory.lens.rendering.terminal import with_caption, safe
from clearstory.lens.views import Grid

Texts = tuple[tuple[str, ...], ...]

CELL, LINE = 84.0, 21.0
LETTERS = 11.0

COLUMN = 12
"""Characters of a cell in the terminal."""


def shades(view: Grid) -> list[list[str]]:
    """The name of each cell's colour, as strong as its share of the largest number; differences have two."""
    strengths = iter(shares([value for row in view.values for value in row]))
    levels = [[math.ceil(next(strengths) * (HEATS - 1) - 1e-9) for _ in row] for row in view.values]
    return [
        [
            f"heat-{level}" if view.ink != "apart" or not level else f"{'more' if value > 0 else 'less'}-{level}"
            for level, value in zip(own, row, strict=True)
        ]
        for own, row in zip(levels, view.values, strict=True)
    ]


def bands(view: Grid, room: int) -> Iterator[range]:
    """The columns that stand beside each other, as many at a time as have room."""
    columns = len(view.column_labels)
    for start in range(0, columns, max(1, room)):
        yield range(start, min(start + max(1, room), columns))


def worded_svg(view: Grid, texts: Texts) -> str:
    """A box for each number with its word; the remark stands at its right in small."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    left = PAD + min(150.0, max((text_width(label, LETTERS) for label in view.row_labels), default=0.0)) + 10
    heats = shades(view)
    for columns in bands(view, int((WIDTH - PAD - left) / CELL)):
        drawing.y += 22
        for number, column in enumerate(columns):
            label = clip(view.column_labels[column], CELL - 6, 12)
            drawing.text(left + number * CELL + 4, drawing.y, label, 12, "ink mono", bold=True)
        drawing.y += 8
        for label, values, words, colours in zip(view.row_labels, view.values, texts, heats, strict=True):
            drawing.text(left - 8, drawing.y + LINE - 6.5, clip(label, 150, LETTERS), LETTERS, "soft num", "end")
            for number, column in enumerate(columns):
                told = f"{label}, {view.column_labels[column]}: {cell_text(values[column])} {view.unit}"
                draw_cell(drawing, left + number * CELL, words[column], colours[column], told)
            drawing.y += LINE
        drawing.y += 8
    return drawing.done(f"{len(view.row_labels)} rows by {len(view.column_labels)} columns of words.")


def draw_cell(drawing: Drawing, x: float, text: str, shade: str, told: str) -> None:
    """One box; all that is known of it appears under the pointer."""
    word, _, remark = text.partition("\n")
    note = clean(f"{word} {remark}".strip() + f" ({told.strip()})")
    drawing.parts.append(
        f'<rect {shade_svg(shade)} x="{x + 0.5:.1f}" y="{drawing.y + 0.5:.1f}" width="{CELL - 1:.1f}" '
        f'height="{LINE - 1:.1f}" rx="2"><title>{note}</title></rect>'
    )
    own = f"mono {letters_on(shade)}"
    room = CELL - 8 - (text_width(remark, 9) + 5 if remark else 0)
    for words, size, at, end in ((clip(word, room, LETTERS), LETTERS, x + 4, ""), (remark, 9, x + CELL - 4, "end")):
        if words:
            anchor = f' text-anchor="{end}"' if end else ""
            drawing.parts.append(
                f'<text x="{at:.1f}" y="{drawing.y + LINE - 6.5:.1f}" font-size="{size:g}" class="{own}" '
                f'pointer-events="none"{anchor}>{clean(words)}</text>'
            )


def worded_text(view: Grid, texts: Texts, width: int) -> RenderableType:
    """Words side by side on the terminal's own colours."""
    gutter = min(24, max((cell_len(safe(label)) for label in view.row_labels), default=0))
    heats, lines = shades(view), []
    for columns in bands(view, (width - gutter - 2) // (COLUMN + 1)):
        head = " ".join(fitted(view.column_labels[column]) for column in columns)
        lines.append(Text(f"{'':>{gutter}}  {head}", style="bold"))
        for label, words, colours in zip(view.row_labels, texts, heats, strict=True):
            name = set_cell_size(safe(label), min(gutter, cell_len(safe(label))))
            line = Text(f"{' ' * (gutter - cell_len(name))}{name} │", style="dim")
            for column in columns:
                line.append(fitted(*words[column].split("\n", 1)), style=token_style(colours[column])).append(" ")
            lines.append(line)
        lines.append(Text(""))
    return with_caption(view.title, view.caption, Group(*lines[:-1]))


def fitted(word: str, remark: str = "") -> str:
    """A word and its remark in exactly the room of a cell."""
    word, remark = safe(word), safe(remark)
    room = COLUMN - (len(remark) + 1 if remark else 0)
    word = word if cell_len(word) <= room else set_cell_size(word, room - 1) + "…"
    return set_cell_size(word, room) + (f" {remark}" if remark else "")
