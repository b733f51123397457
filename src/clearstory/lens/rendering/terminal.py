"""Terminal: views in characters. Token text goes through `safe`: an escape sequence in it would steer the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import STEERING
from clearstory.lens.rendering.scales import Scale, bounds, cell_text, shares, short
from clearstory.lens.views import Curve, Table

COLOURS = ("blue", "yellow", "green", "magenta", "red", "cyan")
EIGHTHS = " ▏▎▍▌▋▊▉"
HEIGHT = 14


def safe(text: str) -> str:
    """Text with everything that would steer a terminal replaced.

    >>> safe("a\\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join("�" if unicodedata.category(c) in STEERING else c for c in text)


def table_text(view: Table, width: int) -> RenderableType:
    """Rows of cells; the column in `bar` gets bars as long as there is room."""
    numbers = [all(isinstance(cell, int | float | None) for cell in view.column(name)) for name in view.columns]
    rows = [[safe(cell_text(cell)) for cell in row] for row in view.rows]
    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for name, number in zip(view.columns, numbers, strict=True):
        table.add_column(Text(safe(name)), justify="right" if number else "left", no_wrap=True)
    used = sum(max([len(name), *(len(row[i]) for row in rows)]) + 2 for i, name in enumerate(view.columns))
    room = max(8, min(40, width - used - 2))
    bars = shares(view.column(view.bar)) if view.bar is not None else []
    if view.bar is not None:
        table.add_column("", no_wrap=True)
    for i, row in enumerate(rows):
        cells = [Text(text) for text in row]
        if view.bar is not None:
            below = row[view.columns.index(view.bar)].startswith("-")
            cells.append(Text(bar(bars[i], room), style="red" if below else "blue"))
        table.add_row(*cells)
    return with_caption(view.title, view.caption, table)


def bar(share: float, room: int) -> str:
    """A bar of `share` of the room, to an eighth of a character.

    >>> bar(0.5, 5)
    '██▌'
    """
    eighths = round(share * room * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def with_caption(title: str, look: str | None, body: RenderableType) -> Group:
    """A title above, what to look for below."""
    parts: list[RenderableType] = [Text(safe(title), style="bold"), Text(""), body]
    if look:
        parts += [Text(""), Text(safe(look), style="italic")]
    return Group(*parts)


def curve_text(view: Curve, width: int) -> RenderableType:
    """Lines in dots of braille, two by four to a character."""
    drawn = [(line, view.points(line)) for line in view.lines]
    points = [point for _, each in drawn for point in each]
    if not points:
        return with_caption(view.title, view.caption, Text("There is nothing to draw yet."))
    lower, upper = view.edges()
    heights = [y for _, y in (*points, *lower, *upper)]
    low, high = (min(heights) / 1.05, max(heights) * 1.05) if view.log_y else bounds(heights, 0.02)
    marks = [short(high), short(math.sqrt(low * high) if view.log_y else (low + high) / 2), short(low)]
    gutter = max(map(len, marks)) + 1
    columns = max(20, min(width, 100) - gutter - 2)
    left_end, right_end = (end(x for x, _ in (*points, *lower)) for end in (min, max))
    x = Scale(left_end, right_end, 0, 2 * columns - 1, view.log_x)
    y = Scale(low, high, 4 * HEIGHT - 1, 0, view.log_y)
    canvas = Canvas(columns)
    for edge in (lower, upper):
        canvas.path([(x(a), y(b)) for a, b in edge], None)
    for number, (_, each) in zip(view.inks(), drawn, strict=True):
        canvas.path([(x(a), y(b)) for a, b in each], number)
    lines = [Text(safe(view.y_label) + (" (log scale)" if view.log_y else ""), style="dim")]
    sides = {0: marks[0], HEIGHT // 2: marks[1], HEIGHT - 1: marks[2]}
    for row in range(HEIGHT):
        lines.append(Text(f"{sides.get(row, ''):>{gutter}}│", style="dim").append_text(canvas.row(row)))
    left, right = short(left_end), short(right_end)
    label = safe(view.x_label) + (" (log scale)" if view.log_x else "")
    lines.append(Text(" " * gutter + "└" + "─" * columns, style="dim"))
    lines.append(
        Text(" " * (gutter + 1) + left + label.center(max(1, columns - len(left) - len(right))) + right, style="dim")
    )
    legend = Text()
    for number, (line, each) in zip(view.inks(), drawn, strict=True):
        if line.of is not None:
            continue
        end = f" {short(each[-1][1])}" if each else ""
        legend.append("━━ ", style=COLOURS[number % len(COLOURS)]).append(f"{safe(line.name)}{end}   ")
    if view.band is not None:
        legend.append("⠒⠒ ", style="dim").append(safe(view.band.name))
    return with_caption(view.title, view.caption, Group(*lines, legend))


class Canvas:
    """Characters of two by four dots each. Unicode's braille block numbers the dots by bits."""

    BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

    def __init__(self, columns: int, rows: int = HEIGHT) -> None:
        self.columns = columns
        self.rows = rows
        self.dots: dict[tuple[int, int], int] = {}
        self.inks: dict[tuple[int, int], int | None] = {}

    def dot(self, x: int, y: int, ink: int | None) -> None:
        """One dot, of a line's colour, or dim."""
        if 0 <= x < 2 * self.columns and 0 <= y < 4 * self.rows:
            place = (y // 4, x // 2)
            self.dots[place] = self.dots.get(place, 0) | self.BITS[y % 4][x % 2]
            self.inks[place] = ink

    def path(self, points: Sequence[tuple[float, float]], ink: int | None) -> None:
        """A line through points."""
        for a, b in zip(points, points[1:] or points, strict=False):
            steps = max(1, round(max(abs(b[0] - a[0]), abs(b[1] - a[1]))))
            for step in range(steps + 1):
                share = step / steps
                self.dot(round(a[0] + share * (b[0] - a[0])), round(a[1] + share * (b[1] - a[1])), ink)

    def row(self, row: int) -> Text:
        """One row of characters."""
        text = Text()
        for column in range(self.columns):
            ink = self.inks.get((row, column))
            style = "dim" if ink is None else COLOURS[ink % len(COLOURS)]
            bits = self.dots.get((row, column), 0)
            text.append(chr(0x2800 + bits) if bits else " ", style=style)
        return text
