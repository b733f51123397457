"""Figure: boxes, arrows and frames, as papers draw a model. In SVG, and in characters."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import PAD, WIDTH, Drawing, clip, text_width
from clearstory.lens.views.figure import Arrow, Box, Figure, Tone
from clearstory.lens.rendering.terminal import with_caption, safe

LETTER, LINE = 9.0, 17.0
"""What a letter and a line of the layout become, in pixels; drawn smaller where the figure is wider than the page."""

INK: dict[Tone, int] = {"words": 0, "places": 5, "attention": 1, "thinking": 2, "norm": 5, "memory": 3, "answer": 4}
"""The colour of a box's edge, by what it does."""

STYLE: dict[Tone, str] = {
    "words": "blue", "attention": "yellow", "thinking": "green", "memory": "magenta", "answer": "red",
}  # fmt: skip

SIGNS = {(True, True, False, False): "│", (False, False, True, True): "─"}
"""Lines by where they go: up, down, left, right; corners are below."""

CORNERS = {
    (False, True, False, True): "╭", (False, True, True, False): "╮", (True, False, False, True): "╰",
    (True, False, True, False): "╯", (True, True, False, True): "├", (True, True, True, False): "┤",
    (False, True, True, True): "┬", (True, False, True, True): "┴", (True, True, True, True): "┼",
}  # fmt: skip

HEADS = {(0, -1): "▲", (0, 1): "▼", (1, 0): "▶", (-1, 0): "◀"}


def told(box: Box) -> str:
    """What a box has learnt, in words.

    >>> told(Box("norm", 0, 0, 1, 1, parameters=1536)), told(Box("add", 0, 0, 1, 1))
    ('1,536 parameters', '')
    """
    if box.parameters is None:
        return ""
    return f"{box.parameters:,} parameter{'s' * (box.parameters != 1)}" if box.parameters else "none of its own"


def lines_of(box: Box) -> list[str]:
    """The lines of text in a box: as many as it has room for."""
    wanted = [line for line in (box.name, box.shape, told(box)) if line]
    room = box.height - 2
    if len(wanted) > room > 0:
        wanted = [*wanted[: room - 1], " · ".join(wanted[room - 1 :])]
    return wanted


def figure_svg(view: Figure) -> str:
    """Boxes with coloured edges, arrows between them, dashed frames around what is repeated."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    across, down = view.size
    letter = min(LETTER, (WIDTH - 2 * PAD) / max(1, across))
    size = min(12.5, letter / LETTER * 14)
    left, top = PAD + (WIDTH - 2 * PAD - across * letter) / 2, drawing.y + 8

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * letter, top + y * LINE

    for group in view.groups:
        x, y = at(group.x + 0.5, group.y + 0.5)
        width, height = (group.width - 1) * letter, (group.height - 1) * LINE
        drawing.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="9" fill="none" class="level" '
            'stroke-width="1.4" stroke-dasharray="6 4"/>'
        )
        drawing.text(x + 9, y + height - 9, f"{group.times} ×", 15, "ink", bold=True)
    for arrow in view.arrows:
        arrow_svg(drawing, [at(x + 0.5, y + 0.5) for x, y in arrow.through], arrow.head)
    for box in view.boxes:
        box_svg(drawing, box, *at(box.x, box.y), letter, size)
    drawing.y = top + down * LINE
    return drawing.done(
        f"{len(view.boxes)} parts from below upwards: {', '.join(box.name for box in reversed(view.boxes))}."
    )


def box_svg(drawing: Drawing, box: Box, x: float, y: float, letter: float, size: float) -> None:
    """A box and what stands in it; a sum is a circle with its sign."""
    width, height = box.width * letter, box.height * LINE
    middle = x + width / 2
    if box.tone == "add":
        drawing.parts.append(
            f'<circle cx="{middle:.1f}" cy="{y + height / 2:.1f}" r="9" class="paper axis" stroke-width="1.2"/>'
        )
        drawing.text(middle, y + height / 2 + 5, box.name, 15, "ink", "middle")
        return
    edge = f"line-{INK[box.tone]}" if box.tone in INK else "axis"
    drawing.parts.append(
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" class="paper {edge}" '
        'stroke-width="1.8"/>'
    )
    words = lines_of(box)
    first = y + height / 2 - (len(words) - 1) * 8 + size * 0.36
    for number, line in enumerate(words):
        fitting = min(size, size * (width - 8) / max(1.0, text_width(line, size)))
        fitting = max(fitting, 8.5)
        text = clip(line, width - 4, fitting)
        look = "ink" if number == 0 else "soft num"
        drawing.text(middle, first + 16 * number, text, round(fitting, 1), look, "middle", bold=number == 0)


def arrow_svg(drawing: Drawing, corners: list[tuple[float, float]], head: bool) -> None:
    """A line through its corners, and a head at its end."""
    (before_x, before_y), (x, y) = corners[-2:]
    way = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
    drawing.parts.append(f'<polyline points="{way}" fill="none" class="axis" stroke-width="1.3"/>')
    if not head:
        return
    across, down = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    # To the edge of the last letter: what it points at begins there.
    x, y = x + across * LETTER / 2, y + down * LINE / 2
    corners = [*corners[:-1], (x, y)]
    points = ((0, 0), (-5, -9), (5, -9))  # pointing down
    turned = [(px * abs(down) + py * across, py * down + px * abs(across)) for px, py in points]
    tip = " ".join(f"{x + px:.1f},{y + py:.1f}" for px, py in turned)
    drawing.parts.append(f'<polygon points="{tip}" class="soft"/>')


def figure_text(view: Figure) -> RenderableType:
    """The same in characters, each box as large as its layout says."""
    across, down = view.size
    paper = Paper(across, down)
    for group in view.groups:
        paper.frame(group.x, group.y, group.width, group.height, "dim", ("┄", "┆"))
        paper.write(group.x + 2, group.y + group.height - 1, f" {group.times} × ", "bold")
    for arrow in view.arrows:
        paper.arrow(arrow)
    for box in view.boxes:
        if box.tone == "add":
            paper.write(box.x + box.width // 2 - 1, box.y + box.height // 2, f"({box.name})", "")
            continue
        paper.clear(box.x, box.y, box.width, box.height)
        paper.frame(box.x, box.y, box.width, box.height, STYLE.get(box.tone, ""), ("─", "│"))
        words = lines_of(box)
        first = box.y + 1 + (box.height - 2 - len(words)) // 2
        for number, line in enumerate(words):
            line = safe(line)[: box.width - 2]
            style = "bold" if number == 0 else "dim"
            paper.write(box.x + 1 + (box.width - 2 - len(line)) // 2, first + number, line, style)
    return with_caption(view.title, view.caption, Lines(*paper.lines()))


class Paper:
    """A field of letters, each with its style."""

    def __init__(self, across: int, down: int) -> None:
        self.across, self.down = across, down
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.ways: dict[tuple[int, int], tuple[bool, bool, bool, bool]] = {}

    def write(self, x: int, y: int, text: str, style: str) -> None:
        """Letters side by side."""
        self.cells.update({(x + number, y): (letter, style) for number, letter in enumerate(text)})

    def clear(self, x: int, y: int, width: int, height: int) -> None:
        """Nothing where a box shall stand."""
        for place in [(a, b) for a in range(x, x + width) for b in range(y, y + height)]:
            self.cells.pop(place, None)

    def cls_and_sep_ids(self, x: int, y: int, width: int, height: int, style: str, lines: tuple[str, str]) -> None:
        """The four sides of a box."""
        flat, steep = lines
        self.write(x, y, f"╭{flat * (width - 2)}╮", style)
        self.write(x, y + height - 1, f"╰{flat * (width - 2)}╯", style)
        for row in range(y + 1, y + height - 1):
            self.write(x, row, steep, style)
            self.write(x + width - 1, row, steep, style)

    def arrow(self, arrow: Arrow) -> None:
        """A way through corners; where it meets another the two are joined."""
        steps: list[tuple[int, int]] = [arrow.through[0]]
        for (x1, y1), (x2, y2) in pairwise(arrow.through):
            across, down = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
            count = max(abs(x2 - x1), abs(y2 - y1))
            steps += [(x1 + across * step, y1 + down * step) for step in range(1, count + 1)]
        for one, other in pairwise(steps):
            way = (other[0] - one[0], other[1] - one[1])
            for place, (across, down) in ((one, way), (other, (-way[0], -way[1]))):
                known = self.ways.get(place, (False,) * 4)
                goes = (down < 0, down > 0, across < 0, across > 0)
                self.ways[place] = tuple(map(any, zip(known, goes, strict=True)))  # type: ignore[assignment]  # four
        for place in steps:
            self.cells[place] = ((SIGNS | CORNERS).get(self.ways[place], "│"), "dim")
        if len(steps) > 1 and arrow.head:
            way = (steps[-1][0] - steps[-2][0], steps[-1][1] - steps[-2][1])
            self.cells[steps[-1]] = (HEADS[way], "dim")

    def lines(self) -> list[Text]:
        """Row by row."""
        out = []
        for row in range(self.down):
            text = Text(no_wrap=True, overflow="crop")
            for column in range(self.across):
                letter, style = self.cells.get((column, row), (" ", ""))
                text.append(letter, style=style)
            out.append(text)
        return out
