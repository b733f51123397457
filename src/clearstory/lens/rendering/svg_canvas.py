"""Drawing: what pictures are made of. Light or dark as the reader's page is; no script, no font, no other file."""

from __future__ import annotations

import html
import unicodedata
from dataclasses import dataclass

WIDTH = 760
PAD = 24
INKS = 6
"""Colours for lines; the seventh is the first again, dashed."""

HEATS = 6
"""Colours for pieces of text, from none to strong."""

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#5d6672",
    "rule": "#e4e7eb",
    "band": "#94a3b8",
    "bar": "#3b6fd4",
    "query": "#c78a00",
    "key": "#0d8f85",
    "value": "#d1373f",
    "line-0": "#2f66d0",
    "line-1": "#c2571a",
    "line-2": "#1a8a62",
    "line-3": "#8a4fc4",
    "line-4": "#b8336a",
    "line-5": "#6b7280",
    # Rising heat, and letters on it whose contrast is 4.5 or more (WCAG 2.2, 1.4.3).
    "heat-0": "#ffffff",
    "heat-1": "#fff1d6",
    "heat-2": "#ffd999",
    "heat-3": "#f7a85c",
    "heat-4": "#c8481c",
    "heat-5": "#7d1128",
    **{f"on-{level}": "#1b1f24" for level in range(4)},
    **{f"on-{level}": "#ffffff" for level in (4, 5)},
}
DARK = {
    "paper": "#14171c",
    "ink": "#e9edf2",
    "soft": "#9aa5b4",
    "rule": "#2b313a",
    "band": "#64748b",
    "bar": "#5b8def",
    "query": "#ffd43b",
    "key": "#41d3c4",
    "value": "#ff6b70",
    "line-0": "#6fa0ff",
    "line-1": "#f0935a",
    "line-2": "#4cc99a",
    "line-3": "#bd8df0",
    "line-4": "#f0749f",
    "line-5": "#a3adba",
    "heat-0": "#14171c",
    "heat-1": "#2f2718",
    "heat-2": "#523a16",
    "heat-3": "#86501a",
    "heat-4": "#d9822b",
    "heat-5": "#ffd28a",
    **{f"on-{level}": "#f5f7fa" for level in range(4)},
    **{f"on-{level}": "#14171c" for level in (4, 5)},
}


def style() -> str:
    """The colours, as custom properties that a page around the drawing may set; readers without them see light ones."""
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    # Said twice: what does not know var() drops the second and keeps the first.
    inks = ("bar", "query", "key", "value")
    fills = "".join(
        f".{name}{{fill:{LIGHT[name]};fill:var(--{name})}}" for name in ("paper", "ink", "soft", "band", *inks)
    )
    edges = "".join(f".edge-{name}{{fill:none;stroke:{LIGHT[name]};stroke:var(--{name})}}" for name in inks)
    dots = "".join(f".dot-{i}{{fill:{LIGHT[f'line-{i}']};fill:var(--line-{i})}}" for i in range(INKS))
    heats = "".join(
        f".{name}-{i}{{fill:{LIGHT[f'{name}-{i}']};fill:var(--{name}-{i})}}"
        for name in ("heat", "on")
        for i in range(HEATS)
    )
    strokes = "".join(f".line-{i}{{stroke:{LIGHT[f'line-{i}']};stroke:var(--line-{i})}}" for i in range(INKS))
    rule = f".rule{{stroke:{LIGHT['rule']};stroke:var(--rule)}}.axis{{stroke:{LIGHT['soft']};stroke:var(--soft)}}"
    level = f".level{{stroke:{LIGHT['band']};stroke:var(--band)}}"
    text = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif}"
    # Letters stand out from lines behind them.
    halo = f".halo{{paint-order:stroke;stroke:{LIGHT['paper']};stroke:var(--paper);stroke-width:3px}}"
    mono = ".mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    even = ".num{font-variant-numeric:tabular-nums}"
    # The root's own colours, so that several drawings on one page do not touch each other's.
    return (
        f"svg.clearstory{{{light}}}@media(prefers-color-scheme:dark){{svg.clearstory{{{dark}}}}}"
        f"{fills}{edges}{dots}{heats}{strokes}{rule}{level}{halo}{text}{mono}{even}"
    )


SIGNS = {"more": 1, "less": 0}
"""The lines whose colours differences have: orange above zero, blue below."""

TINT = 0.11
"""How much of its line's colour a difference has for each level; letters on the strongest keep their contrast."""


def shade_svg(shade: str, also: str = "") -> str:
    """A colour by its name, as attributes of a drawing; `also`: another class.

    >>> shade_svg("heat-2"), shade_svg("less-3")
    ('class="heat-2"', 'class="dot-0" fill-opacity="0.33"')
    """
    name, _, level = shade.partition("-")
    if name not in SIGNS:
        return f'class="{shade}{also}"'
    return f'class="dot-{SIGNS[name]}{also}" fill-opacity="{TINT * int(level):.2g}"'


def letters_on(shade: str) -> str:
    """The colour of letters on it."""
    name, _, level = shade.partition("-")
    return "ink" if name in SIGNS else f"on-{level}"


def clean(text: str) -> str:
    """Text for a drawing or a page: markup escaped, and characters that steer the reader's program replaced.

    >>> clean("<b>\\x1b[31m")
    '&lt;b&gt;�[31m'
    """
    # Control characters are no XML; format characters (Cf) turn the direction of all that follows.
    safe = "".join(" " if c in "\n\t\r" else "�" if unicodedata.category(c) in STEERING else c for c in text)
    return html.escape(safe)


STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


WIDE = "␣↵⇥→"
"""Characters that most fonts borrow from another, where they are wide."""


def text_width(text: str, size: float) -> float:
    """About how wide a text will be: nothing here can measure a font."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" or c in WIDE else 0.56 for c in text) * size


def clip(text: str, width: float, size: float) -> str:
    """As much of a text as has room."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def wrap(text: str, width: float, size: float) -> list[str]:
    """A text in lines."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass
class Drawing:
    """Parts of a drawing, and how far down it reaches."""

    title: str
    parts: list[str]
    y: float = PAD

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        look: str = "soft",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """One line of text."""
        weight = ' font-weight="600"' if bold else ""
        end = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" class="{look}"{end}{weight}>{clean(text)}</text>'
        )

    def head(self, look: str | None) -> None:
        """The title, and what to look for."""
        self.y += 14
        self.text(PAD, self.y, clip(self.title, WIDTH - 2 * PAD, 17), 17, "ink", bold=True)
        for line in wrap(look or "", WIDTH - 2 * PAD, 12.5):
            self.y += 19
            self.text(PAD, self.y, line, 12.5)
        self.y += 16

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str, width: float = 1, dash: str = "") -> None:
        """A straight line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{look}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def done(self, described: str) -> str:
        """The whole document."""
        height = self.y + PAD
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="clearstory" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{clean(self.title)}">'
            f"<title>{clean(self.title)}</title><desc>{clean(described)}</desc><style>{style()}</style>"
            f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="6"/>{"".join(self.parts)}</svg>\n'
        )
