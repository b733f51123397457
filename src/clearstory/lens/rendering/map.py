"""Rendering of maps: labelled points whose labels do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    PAD,
    TERMINAL_COLORS,
    WIDTH,
    BrailleCanvas,
    Scale,
    SvgCanvas,
    escape,
    padded_range,
    sanitize,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.rendering.highlighted_text import display_width
from clearstory.lens.rendering.palette import LINE_COLORS
from clearstory.lens.views.formatting import format_number
from clearstory.lens.views.plots import Map

FONT_SIZE = 12.0
DOT = 4.0
"""Radius of a point in pixels."""

MAX_HEIGHT, MIN_HEIGHT = 560.0, 180.0

MAX_LABEL_WIDTH = 170.0

LISTED = 8
"""Labels without space that the terminal lists below a map; of more, only the number is shown."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def map_svg(view: Map) -> str:
    """A map as SVG: a dot for each point, links behind them, and each label next to its dot or connected by a line."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    view, whole = view.finite(), view
    if not view.points:
        return canvas.empty_document()
    draw_legend(canvas, view)
    left, right, top = float(PAD), float(WIDTH - PAD), canvas.y + 10
    xs, ys = [point.x for point in view.points], [point.y for point in view.points]
    (low_x, high_x), (low_y, high_y) = padded_range(xs, 0.08), padded_range(ys, 0.08)
    # One scale for both axes, so that distances can be compared; it decides the height of the map.
    unit = max((high_x - low_x) / (right - left), (high_y - low_y) / MAX_HEIGHT)
    height = max(MIN_HEIGHT, (high_y - low_y) / unit)
    middle_x, middle_y = (low_x + high_x) / 2, (low_y + high_y) / 2
    half_x, half_y = unit * (right - left) / 2, unit * height / 2
    x = Scale(middle_x - half_x, middle_x + half_x, left, right)
    y = Scale(middle_y - half_y, middle_y + half_y, top + height, top)
    for tick in x.ticks(7):
        canvas.line(x(tick), top, x(tick), top + height, "rule")
        canvas.text(x(tick), top + height + 16, format_number(tick), 11, "soft num", "middle")
    for tick in y.ticks(5):
        canvas.line(left, y(tick), right, y(tick), "rule")
        canvas.text(left + 2, y(tick) - 3, format_number(tick), 11, "soft num")
    centers = [(x(point.x), y(point.y)) for point in view.points]
    for a, b in view.links:
        canvas.line(*centers[a], *centers[b], "level", 1.1)
    without_label = draw_points(canvas, view, centers, (left, top, right, top + height))
    canvas.y = top + height + 34
    canvas.text(right, canvas.y, f"x: {view.x_label} · y: {view.y_label}", 12, anchor="end")
    if without_label:
        canvas.text(left, canvas.y, f"{without_label} labels do not fit: point at the dots, or see the numbers.", 12)
    if lost := len(whole.points) - len(view.points):
        canvas.y += 17
        canvas.text(left, canvas.y, f"{lost} points are not shown: their coordinates are not finite.", 12)
    canvas.y -= 8
    return canvas.document(f"{len(view.points)} points, {view.y_label} over {view.x_label}.")


def draw_points(canvas: SvgCanvas, view: Map, centers: Sequence[tuple[float, float]], frame: Rectangle) -> int:
    """Draw the points and their labels, and return the number of labels that do not fit."""
    names = [truncate_text(point.label, MAX_LABEL_WIDTH, FONT_SIZE) for point in view.points]
    sizes = [(text_width(name, FONT_SIZE) + 4, FONT_SIZE + 3) for name in names]
    boxes = place_labels(centers, sizes, frame)
    for point, (x, y), box in zip(view.points, centers, boxes, strict=True):
        coordinates = f"{format_number(point.x)}, {format_number(point.y)}"
        note = escape(f"{point.label}: {coordinates}" + (f" {point.note}" if point.note else ""))
        if box is not None and (far := distance_to(box, (x, y))) > 2 * DOT:
            edge = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
            canvas.line(x, y, *edge, "level", min(1.0, far))
        canvas.elements.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT:g}" class="dot-{point.group % LINE_COLORS}">'
            f"<title>{note}</title></circle>"
        )
    for name, box in zip(names, boxes, strict=True):
        if box is not None:
            canvas.text(box[0] + 2, box[3] - 4, name, FONT_SIZE, "ink mono halo")
    return sum(box is None for box in boxes)


def draw_legend(canvas: SvgCanvas, view: Map) -> None:
    """Draw a dot and a name for each group, if there are several."""
    if len(view.groups) < 2:
        return
    x, canvas.y = float(PAD), canvas.y + 12
    for number, name in enumerate(view.groups):
        name = truncate_text(name, 300, FONT_SIZE)
        if x + text_width(name, FONT_SIZE) + 34 > WIDTH - PAD and x > PAD:
            x, canvas.y = float(PAD), canvas.y + 20
        canvas.elements.append(
            f'<circle cx="{x + DOT:.1f}" cy="{canvas.y - 4:.1f}" r="{DOT:g}" class="dot-{number % LINE_COLORS}"/>'
        )
        canvas.text(x + 14, canvas.y, name, FONT_SIZE, "ink")
        x += text_width(name, FONT_SIZE) + 34


def place_labels(
    centers: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Rectangle
) -> list[Rectangle | None]:
    """A box for each label, near its dot, without overlap with dots and other labels; None if there is none.

    >>> place_labels([(10, 50), (12, 50)], [(20, 15), (20, 15)], (0, 0, 100, 100))
    [(16, 42.5, 36, 57.5), (-14, 42.5, 6, 57.5)]
    >>> place_labels([(10, 50)], [(200, 15)], (0, 0, 100, 100))
    [None]
    """
    taken: list[Rectangle] = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in centers]
    boxes: list[Rectangle | None] = []
    for center, size in zip(centers, sizes, strict=True):
        free = (
            box
            for box in label_positions(center, size)
            if frame[0] - 15 <= box[0] and box[2] <= frame[2] + 15 and frame[1] <= box[1] and box[3] <= frame[3]
            if not any(overlap(box, other) for other in taken)
        )
        box = next(free, None)
        boxes.append(box)
        if box is not None:
            taken.append(box)
    return boxes


def label_positions(center: tuple[float, float], size: tuple[float, float]) -> Iterator[Rectangle]:
    """Candidate boxes of a label: right, left, above and below its dot, then farther away."""
    (x, y), (width, height) = center, size
    for far in (6, 14, 26, 40, 56, 74, 94, 120, 150):
        sides = (x + far, x - far - width)
        tops = (y - height / 2, y - far - height, y + far)
        yield from ((left, tops[0], left + width, tops[0] + height) for left in sides)
        for top in tops[1:]:
            for left in (x - width / 2, *sides):
                yield left, top, left + width, top + height


def overlap(a: Rectangle, b: Rectangle) -> bool:
    """Whether two rectangles overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def distance_to(box: Rectangle, point: tuple[float, float]) -> float:
    """The larger of the horizontal and the vertical distance from a point to a rectangle."""
    across = max(box[0] - point[0], point[0] - box[2], 0)
    down = max(box[1] - point[1], point[1] - box[3], 0)
    return float(max(across, down))


def map_terminal(view: Map, width: int) -> RenderableType:
    """A map for the terminal: braille dots with equal scales, and labels where they fit."""
    view = view.finite()
    if not view.points:
        return with_caption(view.title, view.caption, Text("There is nothing to draw."))
    columns = max(20, min(width, 100) - 2)
    xs, ys = [point.x for point in view.points], [point.y for point in view.points]
    (low_x, high_x), (low_y, high_y) = padded_range(xs, 0.08), padded_range(ys, 0.08)
    unit = max((high_x - low_x) / (2 * columns - 1), (high_y - low_y) / 119)
    rows = max(6, round((high_y - low_y) / unit / 4) + 1)
    middle_x, half = (low_x + high_x) / 2, unit * (2 * columns - 1) / 2
    x = Scale(middle_x - half, middle_x + half, 0, 2 * columns - 1)
    y = Scale(low_y, high_y, 4 * rows - 1, 0)
    canvas = BrailleCanvas(columns, rows)
    centers = [(x(point.x), y(point.y)) for point in view.points]
    for a, b in view.links:
        canvas.path([centers[a], centers[b]], None)
    cells = [(round(cell_y) // 4, round(cell_x) // 2) for cell_x, cell_y in centers]
    lines = [canvas.row(row) for row in range(rows)]
    for cell, point in zip(cells, view.points, strict=True):
        lines[cell[0]] = overwrite(lines[cell[0]], cell[1], "●", group_style(point.group))
    without_space = write_labels(view, lines, cells, columns)
    footer = [Text(sanitize(f"x: {view.x_label} · y: {view.y_label}"), style="dim")]
    if len(view.groups) > 1:
        key = Text()
        for number, name in enumerate(view.groups):
            key.append("● ", style=group_style(number)).append(f"{sanitize(name)}   ")
        footer.append(key)
    if len(without_space) > LISTED:
        footer.append(Text(f"{len(without_space)} labels do not fit: --out FILE.csv has all of them", style="dim"))
    elif without_space:
        footer.append(Text("labels that do not fit: " + ", ".join(without_space), style="dim"))
    return with_caption(view.title, view.caption, Group(*lines, *footer))


def group_style(group: int) -> str:
    """The terminal colour of a group."""
    return TERMINAL_COLORS[group % len(TERMINAL_COLORS)]


def write_labels(view: Map, lines: list[Text], cells: Sequence[tuple[int, int]], columns: int) -> list[str]:
    """Write the labels into the lines, and return those that do not fit, with their coordinates."""
    taken = set(cells)
    without_space = []
    for cell, point in zip(cells, view.points, strict=True):
        label = sanitize(point.label)
        length = display_width(label)
        near = ((row, start) for row in (0, -1, 1) for start in (1, -length, 2, -length - 1, -length // 2))
        positions = ((cell[0] + row, cell[1] + start) for row, start in near)
        free = (
            (row, start)
            for row, start in positions
            if 0 <= row < len(lines) and start >= 0 and start + length <= columns
            if not any((row, column) in taken for column in range(start - 1, start + length + 1) if column != cell[1])
        )
        position = next(free, None)
        if position is None:
            without_space.append(f"{label} ({format_number(point.x)}, {format_number(point.y)})")
            continue
        row, start = position
        taken.update((row, column) for column in range(start, start + length))
        lines[row] = overwrite(lines[row], start, label, group_style(point.group))
    return without_space


def overwrite(line: Text, start: int, letters: str, style: str) -> Text:
    """A line with letters in place of those from `start` on."""
    return Text.assemble(line[:start], (letters, style), line[start + display_width(letters) :])
