"""Spans: a text in pieces, each coloured by its number. In SVG, on a page, and in characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import DARK, HEATS, LIGHT, PAD, SIGNS, TINT, WIDTH, Drawing, clean, letters_on, shade_svg
from clearstory.lens.rendering.scales import cell_text, short
from clearstory.lens.rendering.terminal import with_caption, safe
from clearstory.lens.views import Span, HighlightedText

STYLES = ("dim", "", "yellow", "bold red", "black on yellow", "bold white on red")
"""The terminal's own colours, which its owner has chosen to be readable."""

SIGNED = {
    "more": ("", "yellow", "yellow", "bold yellow", "black on yellow", "bold black on yellow"),
    "less": ("", "blue", "blue", "bold blue", "white on blue", "bold white on blue"),
}
"""The same of differences, above zero and below."""


def token_style(shade: str) -> str:
    """A colour by its name, in the terminal."""
    name, _, level = shade.partition("-")
    return SIGNED.get(name, STYLES)[int(level)]


SIZE = 14.0
LETTER = 0.602 * SIZE
"""Width of a monospaced letter; the drawing stretches its text to exactly this, whatever the font."""

LINE = 25.0


def spans_svg(view: HighlightedText) -> str:
    """The text in a monospaced font, line by line, on its colours."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    x = float(PAD)
    drawing.y += 8
    for shade, words in keys(view):
        width = 7 * len(words) + 18
        drawing.parts.append(
            f'<rect {shade_svg(shade, " rule")} x="{x:.1f}" y="{drawing.y - 11:.1f}" width="14" height="14" rx="3"/>'
        )
        drawing.text(x + 20, drawing.y, words, 12)
        x += width + 14
    drawing.y += 26
    left, right = float(PAD), float(WIDTH - PAD)
    x, drawing.y = left, drawing.y + 6
    for span in view.spans:
        for part, last in lines(span.text):
            for run in fitted(part, int((right - left) / LETTER)):
                if x > left and x + wide(run) * LETTER > right + 0.5:
                    x, drawing.y = left, drawing.y + LINE
                draw_run(drawing, view, span, run, x)
                x += wide(run) * LETTER
            if not last:
                x, drawing.y = left, drawing.y + LINE
    drawing.y += 6
    return drawing.done(f"{len(view.spans):,} pieces of text, coloured by their {view.unit or 'numbers'}.")


def draw_run(drawing: Drawing, view: HighlightedText, span: Span, run: str, x: float) -> None:
    """A piece on its colour; what is known of it appears under the pointer."""
    width, shade = wide(run) * LETTER, view.shade(span)
    if not width:
        return
    note = f"<title>{clean(span.note)}</title>" if span.note else ""
    drawing.parts.append(
        f'<rect {shade_svg(shade)} x="{x + 0.5:.1f}" y="{drawing.y - 15:.1f}" width="{width - 1:.1f}" '
        f'height="21" rx="2">{note}</rect>'
    )
    text = run.strip(" ↵")
    if text:
        before = wide(run[: run.index(text)]) * LETTER
        drawing.parts.append(
            f'<text x="{x + before:.1f}" y="{drawing.y:.1f}" font-size="{SIZE:g}" class="mono {letters_on(shade)}" '
            f'textLength="{wide(text) * LETTER:.1f}" lengthAdjust="spacingAndGlyphs" pointer-events="none">'
            f"{clean(text)}</text>"
        )


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a piece; each but the last ends with the sign of its line feed."""
    parts = text.replace("\r\n", "\n").split("\n")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        yield (part if last else part + "↵").replace("\t", "    "), last


def fitted(text: str, room: int) -> Iterator[str]:
    """A piece as it is, or cut where it is longer than a line of `room` letters."""
    while wide(text) > room:
        # Half: a letter may take the place of two.
        yield text[: room // 2]
        text = text[room // 2 :]
    yield text


def wide(text: str) -> int:
    """Letters' widths that a text takes.

    >>> wide("ab"), wide("吾")
    (2, 2)
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def keys(view: HighlightedText) -> list[tuple[str, str]]:
    """What each colour means.

    >>> keys(Spans(title="", spans=(), unit="bits", levels=(1, 2)))
    [('heat-0', 'under 1'), ('heat-1', '1 to 2'), ('heat-2', '2 bits and more')]
    """
    marks = [short(level) for level in view.levels]
    unit = f" {view.unit}" if view.unit else ""
    if not marks:
        return []
    between = [f"{low} to {high}" for low, high in pairwise(marks)]
    if view.signed:
        # Two ends and the middle tell the rest: eleven colours are no legend.
        most = len(marks)
        return [
            (f"less-{most}", f"−{marks[-1]}{unit} and less"),
            ("heat-0", f"under {marks[0]} either way"),
            (f"more-{most}", f"+{marks[-1]}{unit} and more"),
        ]
    words = [f"under {marks[0]}", *between, f"{marks[-1]}{unit} and more"]
    return [(f"heat-{level}", each) for level, each in enumerate(words)]


def spans_html(view: HighlightedText) -> str:
    """The text on its colours, the totals above it, and what is known of a piece at the foot of the page."""
    totals = "".join(f"<div><dd>{clean(told(value))}</dd><dt>{clean(name)}</dt></div>" for name, value in view.totals)
    key = "".join(f'<span class="{shade}">&nbsp;</span> {clean(words)}&emsp;' for shade, words in keys(view))
    body = "".join(piece_html(view, span) for span in view.spans)
    look = f"<p>{clean(view.caption)}</p>" if view.caption else ""
    return (
        f"<style>{STYLE}</style><h1>{clean(view.title)}</h1>{look}<dl>{totals}</dl>"
        f'<p class="key">{key}</p><p class="text">{body}</p>'
        '<p class="hint">Point at a piece of the text to see more.</p>'
    )


def palette(colours: dict[str, str]) -> str:
    """The colours a page needs, as custom properties."""
    names = ("paper", "ink", "soft", "rule", *(f"line-{line}" for line in SIGNS.values()))
    names += tuple(f"{name}-{i}" for name in ("heat", "on") for i in range(HEATS))
    return "".join(f"--{name}:{colours[name]};" for name in names)


STYLE = (
    f":root{{{palette(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{palette(DARK)}}}}}"
    + "".join(f".heat-{i}{{background:var(--heat-{i});color:var(--on-{i})}}" for i in range(HEATS))
    + "".join(
        f".{name}-{i}{{background:color-mix(in srgb,var(--line-{line}) {100 * TINT * i:.0f}%,var(--paper))}}"
        for name, line in SIGNS.items()
        for i in range(1, HEATS)
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


def told(value: object) -> str:
    """A total as people read it."""
    return f"{value:,.1f}" if isinstance(value, float) and value >= 1000 else cell_text(value)


def piece_html(view: HighlightedText, span: Span) -> str:
    """One piece; a line feed is shown and obeyed, and a piece without a letter of its own is a narrow bar."""
    text = "\n".join(clean(part) for part, _ in lines(span.text))
    if span.value is None and not span.note:
        return text
    note = f' data-note="{clean(span.note)}"' if span.note else ""
    return f'<span class="{view.shade(span)}"{note}>{text or "&#8202;"}</span>'


class Coloured:
    """A text in the terminal's colours; where there are none, each piece with its number."""

    def __init__(self, view: HighlightedText) -> None:
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """What rich prints."""
        colours = console.color_system is not None and not console.no_color
        body = Text.assemble(*(coloured(self.view) if colours else numbered(self.view)))
        parts = [body]
        if colours:
            key = Text()
            for shade, words in keys(self.view):
                key.append(" " + words + " ", style=token_style(shade)).append("  ")
            parts = [key, Text(""), body]
        yield with_caption(self.view.title, self.view.caption, Group(*parts))


def coloured(view: HighlightedText) -> Iterable[tuple[str, str]]:
    """Each piece and its style."""
    for span in view.spans:
        style = token_style(view.shade(span)) if span.value is not None else ""
        for part, last in lines(span.text):
            yield safe(part), style
            if not last:
                yield "\n", ""


def numbered(view: HighlightedText) -> Iterable[tuple[str, str]]:
    """Each piece and its number in brackets."""
    for span in view.spans:
        said = "".join(safe(part) + ("" if last else "\n") for part, last in lines(span.text))
        body = said.rstrip("\n")
        number = "" if span.value is None else f"[{span.value:{'+' if view.signed else ''}.1f}]"
        yield f"{body}{number}{said[len(body) :]}", ""
