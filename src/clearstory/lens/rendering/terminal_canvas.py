"""Terminal output: sanitised text, titles and captions, and a canvas of braille dots."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import CONTROL_CATEGORIES

TERMINAL_COLORS = ("blue", "yellow", "green", "magenta", "red", "cyan")
"""Line colours, named so that the terminal's own theme decides their shade."""

EIGHTHS = " ▏▎▍▌▋▊▉"

HEIGHT = 14
"""Lines of a canvas."""


def sanitize(text: str) -> str:
    """Text with all control characters replaced, since token text may contain escape sequences.

    >>> sanitize("a\\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join("�" if unicodedata.category(c) in CONTROL_CATEGORIES else c for c in text)


def text_bar(fraction: float, width: int) -> str:
    """A bar over a fraction of a width, in eighths of a character.

    >>> text_bar(0.5, 5)
    '██▌'
    """
    eighths = round(fraction * width * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def with_caption(title: str, caption: str | None, body: RenderableType) -> Group:
    """A body with the title above and the caption below."""
    parts: list[RenderableType] = [Text(sanitize(title), style="bold"), Text(""), body]
    if caption:
        parts += [Text(""), Text(sanitize(caption), style="italic")]
    return Group(*parts)


class BrailleCanvas:
    """A canvas of 2 × 4 dots per character. Unicode's braille block numbers the dots by bits."""

    BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

    def __init__(self, columns: int, rows: int = HEIGHT) -> None:
        self.columns = columns
        self.rows = rows
        self.dots: dict[tuple[int, int], int] = {}
        self.colors: dict[tuple[int, int], int | None] = {}

    def dot(self, x: int, y: int, color: int | None) -> None:
        """Draw a dot with a colour index; None is dim."""
        if 0 <= x < 2 * self.columns and 0 <= y < 4 * self.rows:
            cell = (y // 4, x // 2)
            self.dots[cell] = self.dots.get(cell, 0) | self.BITS[y % 4][x % 2]
            self.colors[cell] = color

    def path(self, points: Sequence[tuple[float, float]], color: int | None) -> None:
        """Draw a line through points."""
        for a, b in zip(points, points[1:] or points, strict=False):
            count = max(1, round(max(abs(b[0] - a[0]), abs(b[1] - a[1]))))
            for number in range(count + 1):
                fraction = number / count
                self.dot(round(a[0] + fraction * (b[0] - a[0])), round(a[1] + fraction * (b[1] - a[1])), color)

    def row(self, row: int) -> Text:
        """One row of characters."""
        text = Text()
        for column in range(self.columns):
            color = self.colors.get((row, column))
            style = "dim" if color is None else TERMINAL_COLORS[color % len(TERMINAL_COLORS)]
            bits = self.dots.get((row, column), 0)
            text.append(chr(0x2800 + bits) if bits else " ", style=style)
        return text
