"""Rendering of diagrams: figures of boxes, arrows and frames, and trees of tokens, one level per row."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    PAD,
    WIDTH,
    SvgCanvas,
    escape,
    sanitize,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.views.diagrams import Arrow, Box, BoxRole, Figure, Node, Tree
from clearstory.lens.views.formatting import format_cell

LETTER_WIDTH, LINE_HEIGHT = 9.0, 17.0
"""Pixels per character and line of the layout; fewer if the figure is wider than the page."""

EDGE_COLORS: dict[BoxRole, int] = {
    "embedding": 0, "position": 5, "attention": 1, "mlp": 2, "norm": 5, "state": 3, "output": 4,
}  # fmt: skip
"""The line colour of a box's edge, by role."""

TERMINAL_STYLES: dict[BoxRole, str] = {
    "embedding": "blue", "attention": "yellow", "mlp": "green", "state": "magenta", "output": "red",
}  # fmt: skip

STRAIGHT = {(True, True, False, False): "│", (False, False, True, True): "─"}
"""Line characters by the directions in which they connect: up, down, left, right."""

CORNERS = {
    (False, True, False, True): "╭", (False, True, True, False): "╮", (True, False, False, True): "╰",
    (True, False, True, False): "╯", (True, True, False, True): "├", (True, True, True, False): "┤",
    (False, True, True, True): "┬", (True, False, True, True): "┴", (True, True, True, True): "┼",
}  # fmt: skip

ARROWHEADS = {(0, -1): "▲", (0, 1): "▼", (1, 0): "▶", (-1, 0): "◀"}


def describe_parameters(box: Box) -> str:
    """The number of parameters of a box as text; empty for a box that cannot have any.

    >>> describe_parameters(Box("norm", 0, 0, 1, 1, parameters=1536)), describe_parameters(Box("add", 0, 0, 1, 1))
    ('1,536 parameters', '')
    """
    if box.parameters is None:
        return ""
    return f"{box.parameters:,} parameter{'s' * (box.parameters != 1)}" if box.parameters else "no own parameters"


def box_lines(box: Box) -> list[str]:
    """The lines of text in a box, as many as it is high."""
    lines = [line for line in (box.name, box.shape, describe_parameters(box)) if line]
    available = box.height - 2
    if len(lines) > available > 0:
        lines = [*lines[: available - 1], " · ".join(lines[available - 1 :])]
    return lines


def figure_svg(view: Figure) -> str:
    """A figure as SVG: boxes with coloured edges, arrows between them, dashed frames around repeated boxes."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    across, down = view.size
    letter = min(LETTER_WIDTH, (WIDTH - 2 * PAD) / max(1, across))
    size = min(12.5, letter / LETTER_WIDTH * 14)
    left, top = PAD + (WIDTH - 2 * PAD - across * letter) / 2, canvas.y + 8

    def position(x: float, y: float) -> tuple[float, float]:
        return left + x * letter, top + y * LINE_HEIGHT

    for frame in view.frames:
        x, y = position(frame.x + 0.5, frame.y + 0.5)
        width, height = (frame.width - 1) * letter, (frame.height - 1) * LINE_HEIGHT
        canvas.elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="9" fill="none" class="level" '
            'stroke-width="1.4" stroke-dasharray="6 4"/>'
        )
        canvas.text(x + 9, y + height - 9, f"{frame.times} ×", 15, "ink", bold=True)
    for arrow in view.arrows:
        draw_arrow(canvas, [position(x + 0.5, y + 0.5) for x, y in arrow.points], arrow.head)
    for box in view.boxes:
        draw_box(canvas, box, *position(box.x, box.y), letter, size)
    canvas.y = top + down * LINE_HEIGHT
    names = ", ".join(box.name for box in reversed(view.boxes))
    return canvas.document(f"{len(view.boxes)} components from the bottom to the top: {names}.")


def draw_box(canvas: SvgCanvas, box: Box, x: float, y: float, letter: float, size: float) -> None:
    """Draw a box with its text; a sum is a circle with its sign."""
    width, height = box.width * letter, box.height * LINE_HEIGHT
    middle = x + width / 2
    if box.role == "add":
        canvas.elements.append(
            f'<circle cx="{middle:.1f}" cy="{y + height / 2:.1f}" r="9" class="paper axis" stroke-width="1.2"/>'
        )
        canvas.text(middle, y + height / 2 + 5, box.name, 15, "ink", "middle")
        return
    edge = f"line-{EDGE_COLORS[box.role]}" if box.role in EDGE_COLORS else "axis"
    canvas.elements.append(
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" class="paper {edge}" '
        'stroke-width="1.8"/>'
    )
    lines = box_lines(box)
    first = y + height / 2 - (len(lines) - 1) * 8 + size * 0.36
    for number, line in enumerate(lines):
        fitting = min(size, size * (width - 8) / max(1.0, text_width(line, size)))
        fitting = max(fitting, 8.5)
        text = truncate_text(line, width - 4, fitting)
        css_class = "ink" if number == 0 else "soft num"
        canvas.text(middle, first + 16 * number, text, round(fitting, 1), css_class, "middle", bold=number == 0)


def draw_arrow(canvas: SvgCanvas, corners: list[tuple[float, float]], head: bool) -> None:
    """Draw a line through its corners, with an arrowhead at its end."""
    (before_x, before_y), (x, y) = corners[-2:]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
    canvas.elements.append(f'<polyline points="{path}" fill="none" class="axis" stroke-width="1.3"/>')
    if not head:
        return
    across, down = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    # To the edge of the last character, where the box begins.
    x, y = x + across * LETTER_WIDTH / 2, y + down * LINE_HEIGHT / 2
    points = ((0, 0), (-5, -9), (5, -9))  # pointing down
    rotated = [(px * abs(down) + py * across, py * down + px * abs(across)) for px, py in points]
    tip = " ".join(f"{x + px:.1f},{y + py:.1f}" for px, py in rotated)
    canvas.elements.append(f'<polygon points="{tip}" class="soft"/>')


def figure_terminal(view: Figure) -> RenderableType:
    """A figure for the terminal, in box-drawing characters."""
    canvas = CharacterCanvas(*view.size)
    for frame in view.frames:
        canvas.frame(frame.x, frame.y, frame.width, frame.height, "dim", ("┄", "┆"))
        canvas.write(frame.x + 2, frame.y + frame.height - 1, f" {frame.times} × ", "bold")
    for arrow in view.arrows:
        canvas.arrow(arrow)
    for box in view.boxes:
        if box.role == "add":
            canvas.write(box.x + box.width // 2 - 1, box.y + box.height // 2, f"({box.name})", "")
            continue
        canvas.clear(box.x, box.y, box.width, box.height)
        canvas.frame(box.x, box.y, box.width, box.height, TERMINAL_STYLES.get(box.role, ""), ("─", "│"))
        lines = box_lines(box)
        first = box.y + 1 + (box.height - 2 - len(lines)) // 2
        for number, line in enumerate(lines):
            line = sanitize(line)[: box.width - 2]
            style = "bold" if number == 0 else "dim"
            canvas.write(box.x + 1 + (box.width - 2 - len(line)) // 2, first + number, line, style)
    return with_caption(view.title, view.caption, Group(*canvas.lines()))


class CharacterCanvas:
    """A canvas of characters, each with its style."""

    def __init__(self, across: int, down: int) -> None:
        self.across, self.down = across, down
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.connections: dict[tuple[int, int], tuple[bool, bool, bool, bool]] = {}

    def write(self, x: int, y: int, text: str, style: str) -> None:
        """Write characters side by side."""
        self.cells.update({(x + number, y): (letter, style) for number, letter in enumerate(text)})

    def clear(self, x: int, y: int, width: int, height: int) -> None:
        """Clear a rectangle."""
        for cell in [(a, b) for a in range(x, x + width) for b in range(y, y + height)]:
            self.cells.pop(cell, None)

    def frame(self, x: int, y: int, width: int, height: int, style: str, lines: tuple[str, str]) -> None:
        """Draw the four sides of a box; `lines` are the horizontal and the vertical character."""
        horizontal, vertical = lines
        self.write(x, y, f"╭{horizontal * (width - 2)}╮", style)
        self.write(x, y + height - 1, f"╰{horizontal * (width - 2)}╯", style)
        for row in range(y + 1, y + height - 1):
            self.write(x, row, vertical, style)
            self.write(x + width - 1, row, vertical, style)

    def arrow(self, arrow: Arrow) -> None:
        """Draw an arrow; where it meets another, both are connected."""
        cells: list[tuple[int, int]] = [arrow.points[0]]
        for (x1, y1), (x2, y2) in pairwise(arrow.points):
            across, down = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
            count = max(abs(x2 - x1), abs(y2 - y1))
            cells += [(x1 + across * number, y1 + down * number) for number in range(1, count + 1)]
        for cell, following in pairwise(cells):
            way = (following[0] - cell[0], following[1] - cell[1])
            for position, (across, down) in ((cell, way), (following, (-way[0], -way[1]))):
                before = self.connections.get(position, (False,) * 4)
                added = (down < 0, down > 0, across < 0, across > 0)
                self.connections[position] = tuple(map(any, zip(before, added, strict=True)))  # type: ignore[assignment]  # four
        for cell in cells:
            self.cells[cell] = ((STRAIGHT | CORNERS).get(self.connections[cell], "│"), "dim")
        if len(cells) > 1 and arrow.head:
            way = (cells[-1][0] - cells[-2][0], cells[-1][1] - cells[-2][1])
            self.cells[cells[-1]] = (ARROWHEADS[way], "dim")

    def lines(self) -> list[Text]:
        """All lines from top to bottom."""
        lines = []
        for row in range(self.down):
            text = Text(no_wrap=True, overflow="crop")
            for column in range(self.across):
                letter, style = self.cells.get((column, row), (" ", ""))
                text.append(letter, style=style)
            lines.append(text)
        return lines


ROW_HEIGHT, BOX_HEIGHT = 58.0, 34.0

EDGE_CLASSES = {"kept": "line-0", "finished": "line-2", "pruned": "rule"}
"""The CSS class of a box's edge, by the status of its token."""

STATUS_STYLES = {"kept": "bold", "finished": "bold green", "pruned": "dim"}


def tree_svg(view: Tree) -> str:
    """A tree as SVG: a box for each token, a line to its parent; the best path is thick."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    levels, best = view.levels(), view.best_path()
    if not levels:
        return canvas.empty_document()
    draw_status_legend(canvas)
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


def draw_status_legend(canvas: SvgCanvas) -> None:
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
            line.append(text, style=STATUS_STYLES[node.status]).append("   ")
        lines.append(line)
    lines.append(
        Text("←2: follows the second token of the line above   *: best path   ■: finished   dim: pruned", style="dim")
    )
    return with_caption(view.title, view.caption, Group(*lines))
