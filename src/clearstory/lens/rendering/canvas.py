"""Canvases for SVG documents and for the terminal, and the scales of axes.

SVG documents are self-contained: no scripts, fonts or other files. Texts for the terminal are sanitized.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.palette import svg_style

WIDTH = 760
"""Width of a document in pixels."""

PAD = 24
"""Padding on all sides in pixels."""

CONTROL_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters that control software instead of being shown."""

WIDE_CHARACTERS = "␣↵⇥→"
"""Characters that most fonts take from a fallback font, in which they are wide."""


def escape(text: str) -> str:
    """Text for SVG or HTML: markup escaped, control characters replaced.

    >>> escape("<b>\\x1b[31m")
    '&lt;b&gt;�[31m'
    """
    # Control characters are invalid in XML; format characters (Cf) change the direction of the text that follows.
    safe = "".join(" " if c in "\n\t\r" else "�" if unicodedata.category(c) in CONTROL_CATEGORIES else c for c in text)
    return html.escape(safe)


def text_width(text: str, size: float) -> float:
    """The estimated width of a text in pixels; fonts cannot be measured here."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" or c in WIDE_CHARACTERS else 0.56 for c in text) * size


def truncate_text(text: str, width: float, size: float) -> str:
    """As much of a text as fits into a width, with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def wrap_text(text: str, width: float, size: float) -> list[str]:
    """A text in lines of at most a width."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass
class SvgCanvas:
    """The elements of an SVG document, and the height `y` used so far."""

    title: str
    elements: list[str]
    y: float = PAD

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        css_class: str = "soft",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """Add one line of text."""
        weight = ' font-weight="600"' if bold else ""
        end = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" class="{css_class}"{end}{weight}>{escape(text)}</text>'
        )

    def header(self, caption: str | None) -> None:
        """Add the title and the caption."""
        self.y += 14
        self.text(PAD, self.y, truncate_text(self.title, WIDTH - 2 * PAD, 17), 17, "ink", bold=True)
        for line in wrap_text(caption or "", WIDTH - 2 * PAD, 12.5):
            self.y += 19
            self.text(PAD, self.y, line, 12.5)
        self.y += 16

    def line(
        self, x1: float, y1: float, x2: float, y2: float, css_class: str, width: float = 1, dash: str = ""
    ) -> None:
        """Add a straight line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.elements.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css_class}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def empty_document(self, message: str = "There is nothing to draw.") -> str:
        """The document of a view without data."""
        self.y += 24
        self.text(PAD, self.y, message, 13)
        return self.document(self.title)

    def document(self, description: str) -> str:
        """The SVG document, with a description for screen readers."""
        height = self.y + PAD
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="clearstory" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(self.title)}">'
            f"<title>{escape(self.title)}</title><desc>{escape(description)}</desc><style>{svg_style()}</style>"
            f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="6"/>{"".join(self.elements)}</svg>\n'
        )


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


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from numbers in `low` to `high` to positions in `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a number.

        >>> Scale(0, 10, 0, 100)(2.5), Scale(1, 100, 0, 10, log=True)(10)
        (25.0, 5.0)
        """
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        fraction = (at - low) / (high - low) if high > low else 0.5
        return self.start + fraction * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the scale, about `most` at most."""
        return log_ticks(self.low, self.high, most) if self.log else even_ticks(self.low, self.high, most)


def even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten.

    >>> even_ticks(0.3, 4.2, 5)
    [1.0, 2.0, 3.0, 4.0]
    """
    if high - low < 1e-300:
        return [low]
    step = round_step((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Multiples, not sums: 0.1 + 0.1 + 0.1 is not 0.3.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(multiple * step, digits) for multiple in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them if they fit.

    >>> log_ticks(3, 700, 6)
    [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most + 1:
            break
    if len(ticks) > most + 1:
        ticks = ticks[:: -(-len(ticks) // most)]
    return ticks if len(ticks) > 1 else even_ticks(low, high, most)


def padded_range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """The minimum and maximum with a margin, never equal."""
    low, high = min(values), max(values)
    # At least a billionth, or rounding would leave no distance between neighbouring floats.
    pad = (high - low) * margin or abs(high) * margin or 1.0
    pad = max(pad, abs(low) * 1e-9, abs(high) * 1e-9, 1e-300)
    return low - pad, high + pad


def relative_magnitudes(values: Sequence[object]) -> list[float]:
    """Absolute values divided by the largest, for bars and shades; 0 for non-finite values.

    >>> relative_magnitudes([0.5, -0.25, None, math.nan])
    [1.0, 0.5, 0.0, 0.0]
    """
    sizes = [abs(float(v)) if isinstance(v, int | float) and math.isfinite(v) else 0.0 for v in values]
    most = max(sizes, default=0.0)
    return [size / most if most else 0.0 for size in sizes]
