"""Tree: words below those that they come after, a step a row. In SVG and in characters."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import PAD, WIDTH, Drawing, clean, clip
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.rendering.terminal import with_caption, safe
from clearstory.lens.views import Node, Tree

ROW, BOX = 58.0, 34.0
"""Height of a step, and of a box in it."""

INK = {"followed": "line-0", "ended": "line-2", "dropped": "rule"}
"""The edge of a box, by what became of the word."""

STYLES = {"followed": "bold", "ended": "bold green", "dropped": "dim"}


def tree_svg(view: Tree) -> str:
    """A box for each word, a line to the one that it comes after; the best way is thick."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    levels, way = view.levels(), view.way()
    if not levels:
        drawing.y += 24
        drawing.text(PAD, drawing.y, "There is nothing to draw.", 13)
        return drawing.done(view.title)
    key(drawing)
    left = PAD + 26.0
    step = min(130.0, (WIDTH - PAD - left) / max(map(len, levels)))
    middles: dict[int, float] = {}
    boxes: list[tuple[int, float]] = []
    top = drawing.y + 10
    for depth, level in enumerate(levels):
        y = top + depth * ROW
        drawing.text(PAD, y + BOX / 2 + 4, str(depth + 1), 12, "soft num")
        for place, at in enumerate(level):
            middles[at] = left + (place + 0.5) * step
            parent = view.nodes[at].parent
            boxes.append((at, y))
            if parent is not None:
                thick = at in way
                look = "line-0" if thick else "axis" if view.nodes[at].fate != "dropped" else "rule"
                drawing.line(middles[parent], y - ROW + BOX, middles[at], y, look, 2.5 if thick else 1)
    for at, y in boxes:
        draw_node(drawing, view, view.nodes[at], at in way, middles[at], y, step)
    drawing.y = top + len(levels) * ROW - (ROW - BOX)
    return drawing.done(f"{len(view.nodes)} words in {len(levels)} steps.")


def key(drawing: Drawing) -> None:
    """What each edge means."""
    x = float(PAD)
    drawing.y += 6
    for fate, words in (("followed", "followed"), ("ended", "ended here"), ("dropped", "dropped")):
        drawing.parts.append(
            f'<rect x="{x:.1f}" y="{drawing.y - 10:.1f}" width="14" height="12" rx="3" class="paper {INK[fate]}" '
            'stroke-width="1.6"/>'
        )
        drawing.text(x + 20, drawing.y, words, 12)
        x += 120
    drawing.y += 8


def draw_node(drawing: Drawing, view: Tree, node: Node, best: bool, middle: float, y: float, step: float) -> None:
    """One word in its box, its number under it."""
    width = step - 6
    note = clean(f"{node.text}: {cell_text(node.value)} {view.unit}, {node.fate}")
    drawing.parts.append(
        f'<rect x="{middle - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX:.1f}" rx="5" '
        f'class="paper {INK[node.fate]}" stroke-width="{2.4 if best else 1.4}"><title>{note}</title></rect>'
    )
    size = 12 if width >= 58 else 10
    look = "soft mono" if node.fate == "dropped" else "ink mono"
    drawing.text(middle, y + 15, clip(node.text, width - 6, size), size, look, "middle", bold=best)
    drawing.text(middle, y + 28, clip(f"{node.value:.2f}", width - 4, 9.5), 9.5, "soft num", "middle")


def tree_text(view: Tree, width: int) -> RenderableType:
    """A step a line; behind a word its number, and which word of the line above it comes after."""
    levels, way = view.levels(), view.way()
    lines: list[Text] = []
    places = {at: place for level in levels for place, at in enumerate(level)}
    for depth, level in enumerate(levels):
        line = Text(f"{depth + 1:>3}  ", style="dim")
        for at in level:
            node = view.nodes[at]
            after = "" if node.parent is None else f" ←{places[node.parent] + 1}"
            mark = "*" if at in way else "■" if node.fate == "ended" else ""
            said = f"{mark}{safe(node.text)} {node.value:.2f}{after}"
            if len(line) + len(said) > width and len(line) > 5:
                lines.append(line)
                line = Text("     ")
            line.append(said, style=STYLES[node.fate]).append("   ")
        lines.append(line)
    lines.append(
        Text("←2: after the second of the line above   *: the best way   ■: ended   dim: dropped", style="dim")
    )
    return with_caption(view.title, view.caption, Group(*lines))
