"""Rendering of highlighted text: as SVG, as HTML and for the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import PAD, WIDTH, SvgCanvas, escape, sanitize, with_caption
from clearstory.lens.rendering.palette import (
    DARK,
    HEAT_LEVELS,
    LIGHT,
    SIGN_COLORS,
    TINT,
    color_attributes,
    text_class_on,
)
from clearstory.lens.views.formatting import format_cell, format_number
from clearstory.lens.views.text import HighlightedText, Span

HEAT_STYLES = ("dim", "", "yellow", "bold red", "black on yellow", "bold white on red")
"""Terminal styles by level, in the named colours of the terminal's own theme."""

SIGNED_STYLES = {
    "more": ("", "yellow", "yellow", "bold yellow", "black on yellow", "bold black on yellow"),
    "less": ("", "blue", "blue", "bold blue", "white on blue", "bold white on blue"),
}
"""Terminal styles of differences by level, above zero and below."""


def terminal_style(color_class: str) -> str:
    """The terminal style of a colour class."""
    name, _, level = color_class.partition("-")
    return SIGNED_STYLES.get(name, HEAT_STYLES)[int(level)]


# ---- SVG

FONT_SIZE = 14.0

LETTER_WIDTH = 0.602 * FONT_SIZE
"""Width of a monospaced letter; the document stretches its text to exactly this width in any font."""

LINE_HEIGHT = 25.0


def highlighted_text_svg(view: HighlightedText) -> str:
    """Highlighted text as SVG, in a monospaced font, with a legend above."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    x = float(PAD)
    canvas.y += 8
    for color_class, words in legend(view):
        width = 7 * len(words) + 18
        canvas.elements.append(
            f'<rect {color_attributes(color_class, " rule")} x="{x:.1f}" y="{canvas.y - 11:.1f}" width="14" '
            'height="14" rx="3"/>'
        )
        canvas.text(x + 20, canvas.y, words, 12)
        x += width + 14
    canvas.y += 26
    left, right = float(PAD), float(WIDTH - PAD)
    x, canvas.y = left, canvas.y + 6
    for span in view.spans:
        for text, is_last in split_lines(span.text):
            for run in split_long(text, int((right - left) / LETTER_WIDTH)):
                if x > left and x + display_width(run) * LETTER_WIDTH > right + 0.5:
                    x, canvas.y = left, canvas.y + LINE_HEIGHT
                draw_run(canvas, view, span, run, x)
                x += display_width(run) * LETTER_WIDTH
            if not is_last:
                x, canvas.y = left, canvas.y + LINE_HEIGHT
    canvas.y += 6
    return canvas.document(f"{len(view.spans):,} spans of text, coloured by their {view.unit or 'numbers'}.")


def draw_run(canvas: SvgCanvas, view: HighlightedText, span: Span, run: str, x: float) -> None:
    """Draw a run of text on its colour, with the span's note as a tooltip."""
    width, color_class = display_width(run) * LETTER_WIDTH, view.color_class(span)
    if not width:
        return
    note = f"<title>{escape(span.note)}</title>" if span.note else ""
    canvas.elements.append(
        f'<rect {color_attributes(color_class)} x="{x + 0.5:.1f}" y="{canvas.y - 15:.1f}" width="{width - 1:.1f}" '
        f'height="21" rx="2">{note}</rect>'
    )
    text = run.strip(" ↵")
    if text:
        before = display_width(run[: run.index(text)]) * LETTER_WIDTH
        canvas.elements.append(
            f'<text x="{x + before:.1f}" y="{canvas.y:.1f}" font-size="{FONT_SIZE:g}" '
            f'class="mono {text_class_on(color_class)}" textLength="{display_width(text) * LETTER_WIDTH:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" pointer-events="none">{escape(text)}</text>'
        )


def split_lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a text and whether each is the last; all others end with a visible line feed."""
    lines = text.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines):
        is_last = number == len(lines) - 1
        yield (line if is_last else line + "↵").replace("\t", "    "), is_last


def split_long(text: str, width: int) -> Iterator[str]:
    """A text in runs of at most `width` letters."""
    while display_width(text) > width:
        # Half: a letter may be two letters wide.
        yield text[: width // 2]
        text = text[width // 2 :]
    yield text


def display_width(text: str) -> int:
    """The width of a text in monospaced letters.

    >>> display_width("ab"), display_width("吾")
    (2, 2)
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def legend(view: HighlightedText) -> list[tuple[str, str]]:
    """Each colour class and the numbers that have it.

    >>> legend(HighlightedText(title="", spans=(), unit="bits", thresholds=(1, 2)))
    [('heat-0', 'under 1'), ('heat-1', '1 to 2'), ('heat-2', '2 bits or more')]
    """
    marks = [format_number(threshold) for threshold in view.thresholds]
    unit = f" {view.unit}" if view.unit else ""
    if not marks:
        return []
    if view.signed:
        # Only both ends and the middle: eleven colours are too many for a legend.
        most = len(marks)
        return [
            (f"less-{most}", f"−{marks[-1]}{unit} or less"),
            ("heat-0", f"within ±{marks[0]}"),
            (f"more-{most}", f"+{marks[-1]}{unit} or more"),
        ]
    between = [f"{low} to {high}" for low, high in pairwise(marks)]
    words = [f"under {marks[0]}", *between, f"{marks[-1]}{unit} or more"]
    return [(f"heat-{level}", each) for level, each in enumerate(words)]


# ---- HTML


def highlighted_text_html(view: HighlightedText) -> str:
    """Highlighted text as part of an HTML page, with totals above; a span's note appears when it is pointed at."""
    totals = "".join(
        f"<div><dd>{escape(format_total(value))}</dd><dt>{escape(name)}</dt></div>" for name, value in view.totals
    )
    key = "".join(
        f'<span class="{color_class}">&nbsp;</span> {escape(words)}&emsp;' for color_class, words in legend(view)
    )
    body = "".join(span_html(view, span) for span in view.spans)
    caption = f"<p>{escape(view.caption)}</p>" if view.caption else ""
    return (
        f"<style>{STYLE}</style><h1>{escape(view.title)}</h1>{caption}<dl>{totals}</dl>"
        f'<p class="key">{key}</p><p class="text">{body}</p>'
        '<p class="hint">Point at a span of the text to see details.</p>'
    )


def custom_properties(colors: dict[str, str]) -> str:
    """The colours that the page needs, as CSS custom properties."""
    names = ("paper", "ink", "soft", "rule", *(f"line-{line}" for line in SIGN_COLORS.values()))
    names += tuple(f"{name}-{i}" for name in ("heat", "on") for i in range(HEAT_LEVELS))
    return "".join(f"--{name}:{colors[name]};" for name in names)


STYLE = (
    f":root{{{custom_properties(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{custom_properties(DARK)}}}}}"
    + "".join(f".heat-{i}{{background:var(--heat-{i});color:var(--on-{i})}}" for i in range(HEAT_LEVELS))
    + "".join(
        f".{name}-{i}{{background:color-mix(in srgb,var(--line-{line}) {100 * TINT * i:.0f}%,var(--paper))}}"
        for name, line in SIGN_COLORS.items()
        for i in range(1, HEAT_LEVELS)
    )
    + """
h1 { font-size: 1.2rem; margin: 0 0 .4rem; }
p { color: var(--soft); margin: .4rem 0; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dt { color: var(--soft); font-size: 12px; }
dl > div { display: flex; flex-direction: column; }
.key span { display: inline-block; width: 1.1em; border: 1px solid var(--rule); border-radius: 3px; }
.key { font-size: 12px; word-spacing: .12em; }
.text { background: var(--paper); color: var(--ink); border: 1px solid var(--rule); border-radius: 7px;
  padding: 1rem 1.2rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 15px/1.75 ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
.text span { border-radius: 2px; padding: .1em 0; box-shadow: inset -1px 0 var(--paper);
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.text span:hover { outline: 2px solid var(--ink); outline-offset: 1px; }
.text span[data-note]:hover::after { content: attr(data-note); position: fixed; left: 50%; bottom: 1.2rem;
  transform: translateX(-50%); width: max-content; max-width: min(92vw, 900px); padding: .55rem .9rem;
  border-radius: 7px; background: var(--ink); color: var(--paper); font-size: 13px; line-height: 1.5;
  box-shadow: 0 3px 14px #0006; }
.hint { font-size: 12px; }
main { padding-bottom: 4rem; }
"""
)


def format_total(value: object) -> str:
    """A total as text; large floats with one decimal."""
    return f"{value:,.1f}" if isinstance(value, float) and value >= 1000 else format_cell(value)


def span_html(view: HighlightedText, span: Span) -> str:
    """One span. Line feeds are both shown and kept; a span without visible text is a narrow bar."""
    text = "\n".join(escape(line) for line, _ in split_lines(span.text))
    if span.value is None and not span.note:
        return text
    note = f' data-note="{escape(span.note)}"' if span.note else ""
    return f'<span class="{view.color_class(span)}"{note}>{text or "&#8202;"}</span>'


# ---- terminal


class HighlightedTextTerminal:
    """Highlighted text for the terminal: in colours, or without colours with the number after each span."""

    def __init__(self, view: HighlightedText) -> None:
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """What rich prints."""
        has_colors = console.color_system is not None and not console.no_color
        body = Text.assemble(*(colored_spans(self.view) if has_colors else numbered_spans(self.view)))
        parts = [body]
        if has_colors:
            key = Text()
            for color_class, words in legend(self.view):
                key.append(" " + words + " ", style=terminal_style(color_class)).append("  ")
            parts = [key, Text(""), body]
        yield with_caption(self.view.title, self.view.caption, Group(*parts))


def colored_spans(view: HighlightedText) -> Iterable[tuple[str, str]]:
    """The text of each span and its style."""
    for span in view.spans:
        style = terminal_style(view.color_class(span)) if span.value is not None else ""
        for line, is_last in split_lines(span.text):
            yield sanitize(line), style
            if not is_last:
                yield "\n", ""


def numbered_spans(view: HighlightedText) -> Iterable[tuple[str, str]]:
    """The text of each span followed by its number in brackets, without a style."""
    for span in view.spans:
        text = "".join(sanitize(line) + ("" if is_last else "\n") for line, is_last in split_lines(span.text))
        body = text.rstrip("\n")
        number = "" if span.value is None else f"[{span.value:{'+' if view.signed else ''}.1f}]"
        yield f"{body}{number}{text[len(body) :]}", ""
