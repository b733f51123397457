"""SVG canvas: text, lines and layout of stand-alone SVG documents without scripts, fonts or other files."""

from __future__ import annotations

import html
import unicodedata
from dataclasses import dataclass

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
