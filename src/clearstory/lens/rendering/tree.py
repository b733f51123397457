"""Rendering of trees: tokens below their parents, one level per row."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import PAD, WIDTH, SvgCanvas, escape, truncate_text
from clearstory.lens.rendering.terminal_canvas import sanitize, with_caption
from clearstory.lens.views.number_format import format_cell
from clearstory.lens.views.tree import Node, Tree

ROW_HEIGHT, BOX_HEIGHT = 58.0, 34.0

EDGE_CLASSES = {"kept": "line-0", "finished": "line-2", "pruned": "rule"}
"""The CSS class of a box's edge, by the status of its token."""

TERMINAL_STYLES = {"kept": "bold", "finished": "bold green", "pruned": "dim"}


def tree_svg(view: Tree) -> str:
    """A tree as SVG: a box for each token, a line to its parent; the best path is thick."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    levels, best = view.levels(), view.best_path()
    if not levels:
        return canvas.empty_document()
    draw_legend(canvas)
    left = PAD + 26.0
    pitch = min(130.0, (WIDTH - PAD - left) / max(map(len, levels)))
    middles: dict[int, float] = {}
    boxes: list[tuple[int, float]] = []
    top = canvas.y + 10
    for depth, level in enumerate(levels):
        y = top + depth * ROW_HEIGHT
        canvas.text(PAD, y + BOX_HEIGHT / 2 + 4, str(depth + 1), 12, "soft num")
        for column, index in enumerate(level):
            middles[index] = left + (column + 0.5) * pitch
            parent = view.nodes[index].parent
            boxes.append((index, y))
            if parent is not None:
                thick = index in best
                css_class = "line-0" if thick else "axis" if view.nodes[index].status != "pruned" else "rule"
                start = y - ROW_HEIGHT + BOX_HEIGHT
                canvas.line(middles[parent], start, middles[index], y, css_class, 2.5 if thick else 1)
    for index, y in boxes:
        draw_node(canvas, view, view.nodes[index], index in best, middles[index], y, pitch)
    canvas.y = top + len(levels) * ROW_HEIGHT - (ROW_HEIGHT - BOX_HEIGHT)
    return canvas.document(f"{len(view.nodes)} tokens on {len(levels)} levels.")


def draw_legend(canvas: SvgCanvas) -> None:
    """Draw the meaning of each edge colour."""
    x = float(PAD)
    canvas.y += 6
    for status, css_class in EDGE_CLASSES.items():
        canvas.elements.append(
            f'<rect x="{x:.1f}" y="{canvas.y - 10:.1f}" width="14" height="12" rx="3" class="paper {css_class}" '
            'stroke-width="1.6"/>'
        )
        canvas.text(x + 20, canvas.y, status, 12)
        x += 120
    canvas.y += 8


def draw_node(canvas: SvgCanvas, view: Tree, node: Node, best: bool, middle: float, y: float, pitch: float) -> None:
    """Draw one token in its box, with its number below."""
    width = pitch - 6
    note = escape(f"{node.text}: {format_cell(node.value)} {view.unit}, {node.status}")
    canvas.elements.append(
        f'<rect x="{middle - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX_HEIGHT:.1f}" rx="5" '
        f'class="paper {EDGE_CLASSES[node.status]}" stroke-width="{2.4 if best else 1.4}"><title>{note}</title></rect>'
    )
    size = 12 if width >= 58 else 10
    css_class = "soft mono" if node.status == "pruned" else "ink mono"
    canvas.text(middle, y + 15, truncate_text(node.text, width - 6, size), size, css_class, "middle", bold=best)
    canvas.text(middle, y + 28, truncate_text(f"{node.value:.2f}", width - 4, 9.5), 9.5, "soft num", "middle")


def tree_terminal(view: Tree, width: int) -> RenderableType:
    """A tree for the terminal, one level per line: tokens, numbers, and which token of the line above each follows."""
    levels, best = view.levels(), view.best_path()
    lines: list[Text] = []
    columns = {index: column for level in levels for column, index in enumerate(level)}
    for depth, level in enumerate(levels):
        line = Text(f"{depth + 1:>3}  ", style="dim")
        for index in level:
            node = view.nodes[index]
            after = "" if node.parent is None else f" ←{columns[node.parent] + 1}"
            mark = "*" if index in best else "■" if node.status == "finished" else ""
            text = f"{mark}{sanitize(node.text)} {node.value:.2f}{after}"
            if len(line) + len(text) > width and len(line) > 5:
                lines.append(line)
                line = Text("     ")
            line.append(text, style=TERMINAL_STYLES[node.status]).append("   ")
        lines.append(line)
    lines.append(
        Text("←2: follows the second token of the line above   *: best path   ■: finished   dim: pruned", style="dim")
    )
    return with_caption(view.title, view.caption, Group(*lines))
