"""The colours of rendered views, light and dark, and the CSS of SVG documents."""

from __future__ import annotations

LINE_COLORS = 6
"""Number of line colours; the seventh line has the first colour again, dashed."""

HEAT_LEVELS = 6
"""Number of heat colours, from none to strong."""

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
    # Heat levels, and text colours on them with a contrast of at least 4.5 (WCAG 2.2, 1.4.3).
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


def svg_style() -> str:
    """CSS of an SVG document: the colours as custom properties, dark where the reader prefers it, and the classes."""
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    # Each colour twice: software without var() ignores the second declaration and keeps the first.
    marks = ("bar", "query", "key", "value")
    fills = "".join(
        f".{name}{{fill:{LIGHT[name]};fill:var(--{name})}}" for name in ("paper", "ink", "soft", "band", *marks)
    )
    edges = "".join(f".edge-{name}{{fill:none;stroke:{LIGHT[name]};stroke:var(--{name})}}" for name in marks)
    dots = "".join(f".dot-{i}{{fill:{LIGHT[f'line-{i}']};fill:var(--line-{i})}}" for i in range(LINE_COLORS))
    heat = "".join(
        f".{name}-{i}{{fill:{LIGHT[f'{name}-{i}']};fill:var(--{name}-{i})}}"
        for name in ("heat", "on")
        for i in range(HEAT_LEVELS)
    )
    strokes = "".join(f".line-{i}{{stroke:{LIGHT[f'line-{i}']};stroke:var(--line-{i})}}" for i in range(LINE_COLORS))
    rule = f".rule{{stroke:{LIGHT['rule']};stroke:var(--rule)}}.axis{{stroke:{LIGHT['soft']};stroke:var(--soft)}}"
    link = f".level{{stroke:{LIGHT['band']};stroke:var(--band)}}"
    text = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','DejaVu Sans',sans-serif}"
    # An outline in the background colour separates letters from lines behind them.
    halo = f".halo{{paint-order:stroke;stroke:{LIGHT['paper']};stroke:var(--paper);stroke-width:3px}}"
    mono = ".mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    tabular = ".num{font-variant-numeric:tabular-nums}"
    # Properties on the root element, so that several drawings on one page do not affect each other.
    return (
        f"svg.clearstory{{{light}}}@media(prefers-color-scheme:dark){{svg.clearstory{{{dark}}}}}"
        f"{fills}{edges}{dots}{heat}{strokes}{rule}{link}{halo}{text}{mono}{tabular}"
    )


SIGN_COLORS = {"more": 1, "less": 0}
"""The line colours of differences: orange above zero, blue below."""

TINT = 0.11
"""Opacity of a difference's colour per level; text on the strongest level keeps its contrast."""


def color_attributes(color_class: str, extra_class: str = "") -> str:
    """A colour by its name, as SVG attributes.

    >>> color_attributes("heat-2"), color_attributes("less-3")
    ('class="heat-2"', 'class="dot-0" fill-opacity="0.33"')
    """
    name, _, level = color_class.partition("-")
    if name not in SIGN_COLORS:
        return f'class="{color_class}{extra_class}"'
    return f'class="dot-{SIGN_COLORS[name]}{extra_class}" fill-opacity="{TINT * int(level):.2g}"'


def text_class_on(color_class: str) -> str:
    """The CSS class of text on a colour."""
    name, _, level = color_class.partition("-")
    return "ink" if name in SIGN_COLORS else f"on-{level}"
