"""Map: points with labels that do not cover each other. In SVG, and in dots of braille."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.svg_canvas import INKS, PAD, WIDTH, Drawing, clean, clip, text_width
from clearstory.lens.views.map import Map
from clearstory.lens.rendering.scales import Scale, bounds, short
from clearstory.lens.rendering.highlighted_text import wide
from clearstory.lens.rendering.terminal import COLOURS, Canvas, with_caption, safe

LETTERS = 12.0
DOT = 4.0
TALLEST, LOWEST = 560.0, 180.0
LONGEST = 170.0
"""Of a label, in pixels."""

LISTED = 8
"""Labels without room that are listed below a map in the terminal; of more their number is told."""

Room = tuple[float, float, float, float]
"""Left, top, right, bottom of what is taken."""


def map_svg(view: Map) -> str:
    """A dot for each point, links behind them, and each label beside its dot or led to by a line."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    view, every = view.drawable, view
    if not view.points:
        drawing.y += 24
        drawing.text(PAD, drawing.y, "There is nothing to draw.", 13)
        return drawing.done(view.title)
    legend(drawing, view)
    left, right, top = float(PAD), float(WIDTH - PAD), drawing.y + 10
    xs, ys = [point.x for point in view.points], [point.y for point in view.points]
    (low_x, high_x), (low_y, high_y) = bounds(xs, 0.08), bounds(ys, 0.08)
    # One scale for both, so that distances can be compared; the map is as tall as that makes it.
    unit = max((high_x - low_x) / (right - left), (high_y - low_y) / TALLEST)
    height = max(LOWEST, (high_y - low_y) / unit)
    middle_x, middle_y = (low_x + high_x) / 2, (low_y + high_y) / 2
    half_x, half_y = unit * (right - left) / 2, unit * height / 2
    x = Scale(middle_x - half_x, middle_x + half_x, left, right)
    y = Scale(middle_y - half_y, middle_y + half_y, top + height, top)
    for mark in x.ticks(7):
        drawing.line(x(mark), top, x(mark), top + height, "rule")
        drawing.text(x(mark), top + height + 16, short(mark), 11, "soft num", "middle")
    for mark in y.ticks(5):
        drawing.line(left, y(mark), right, y(mark), "rule")
        drawing.text(left + 2, y(mark) - 3, short(mark), 11, "soft num")
    places = [(x(point.x), y(point.y)) for point in view.points]
    for one, other in view.links:
        drawing.line(*places[one], *places[other], "level", 1.1)
    names = [clip(point.label, LONGEST, LETTERS) for point in view.points]
    sizes = [(text_width(name, LETTERS) + 4, LETTERS + 3) for name in names]
    homes = settled(places, sizes, (left, top, right, top + height))
    for point, (at_x, at_y), home in zip(view.points, places, homes, strict=True):
        ink = point.group % INKS
        note = clean(f"{point.label}: {short(point.x)}, {short(point.y)}" + (f" {point.note}" if point.note else ""))
        if home is not None and (far := away(home, (at_x, at_y))) > 2 * DOT:
            edge = (min(max(at_x, home[0]), home[2]), min(max(at_y, home[1]), home[3]))
            drawing.line(at_x, at_y, *edge, "level", min(1.0, far))
        drawing.parts.append(
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{DOT:g}" class="dot-{ink}"><title>{note}</title></circle>'
        )
    for name, home in zip(names, homes, strict=True):
        if home is not None:
            drawing.text(home[0] + 2, home[3] - 4, name, LETTERS, "ink mono halo")
    drawing.y = top + height + 34
    drawing.text(right, drawing.y, f"across: {view.x_label} · up: {view.y_label}", 12, anchor="end")
    if missing := sum(home is None for home in homes):
        drawing.text(left, drawing.y, f"{missing} labels had no room: point at their dots, or see the numbers.", 12)
    if lost := len(every.points) - len(view.points):
        drawing.y += 17
        drawing.text(left, drawing.y, f"{lost} points have no place: their numbers are none.", 12)
    drawing.y -= 8
    return drawing.done(f"{len(view.points)} points, {view.y_label} over {view.x_label}.")


def legend(drawing: Drawing, view: Map) -> None:
    """A dot and a name for each colour."""
    if len(view.groups) < 2:
        return
    x, drawing.y = float(PAD), drawing.y + 12
    for number, name in enumerate(view.groups):
        name = clip(name, 300, LETTERS)
        if x + text_width(name, LETTERS) + 34 > WIDTH - PAD and x > PAD:
            x, drawing.y = float(PAD), drawing.y + 20
        drawing.parts.append(
            f'<circle cx="{x + DOT:.1f}" cy="{drawing.y - 4:.1f}" r="{DOT:g}" class="dot-{number % INKS}"/>'
        )
        drawing.text(x + 14, drawing.y, name, LETTERS, "ink")
        x += text_width(name, LETTERS) + 34


def settled(
    places: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Room
) -> list[Room | None]:
    """A place for each label, near its dot, over no dot and no other label; None where there is none.

    >>> settled([(10, 50), (12, 50)], [(20, 15), (20, 15)], (0, 0, 100, 100))
    [(16, 42.5, 36, 57.5), (-14, 42.5, 6, 57.5)]
    >>> settled([(10, 50)], [(200, 15)], (0, 0, 100, 100))
    [None]
    """
    taken: list[Room] = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in places]
    homes: list[Room | None] = []
    for place, size in zip(places, sizes, strict=True):
        free = (
            room
            for room in around(place, size)
            if frame[0] - 15 <= room[0] and room[2] <= frame[2] + 15 and frame[1] <= room[1] and room[3] <= frame[3]
            if not any(overlap(room, other) for other in taken)
        )
        home = next(free, None)
        homes.append(home)
        if home is not None:
            taken.append(home)
    return homes


def around(place: tuple[float, float], size: tuple[float, float]) -> Iterator[Room]:
    """Where a label may stand: right, left, above, below its dot, then farther and farther off."""
    (x, y), (width, height) = place, size
    for far in (6, 14, 26, 40, 56, 74, 94, 120, 150):
        sides = (x + far, x - far - width)
        levels = (y - height / 2, y - far - height, y + far)
        yield from ((left, levels[0], left + width, levels[0] + height) for left in sides)
        for top in levels[1:]:
            for left in (x - width / 2, *sides):
                yield left, top, left + width, top + height


def overlap(one: Room, other: Room) -> bool:
    """Whether two rooms share any."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def away(room: Room, place: tuple[float, float]) -> float:
    """How far a place is from the nearest edge of a room."""
    across = max(room[0] - place[0], place[0] - room[2], 0)
    down = max(room[1] - place[1], place[1] - room[3], 0)
    return float(max(across, down))


def map_text(view: Map, width: int) -> RenderableType:
    """Dots of braille, which are as far from each other across as down, and labels where they have room."""
    view = view.drawable
    if not view.points:
        return with_caption(view.title, view.caption, Text("There is nothing to draw."))
    columns = max(20, min(width, 100) - 2)
    xs, ys = [point.x for point in view.points], [point.y for point in view.points]
    (low_x, high_x), (low_y, high_y) = bounds(xs, 0.08), bounds(ys, 0.08)
    unit = max((high_x - low_x) / (2 * columns - 1), (high_y - low_y) / 119)
    rows = max(6, round((high_y - low_y) / unit / 4) + 1)
    middle_x, half = (low_x + high_x) / 2, unit * (2 * columns - 1) / 2
    x = Scale(middle_x - half, middle_x + half, 0, 2 * columns - 1)
    y = Scale(low_y, high_y, 4 * rows - 1, 0)
    canvas = Canvas(columns, rows)
    places = [(x(point.x), y(point.y)) for point in view.points]
    for one, other in view.links:
        canvas.path([places[one], places[other]], None)
    cells = [(round(at_y) // 4, round(at_x) // 2) for at_x, at_y in places]
    lines = [canvas.row(row) for row in range(rows)]
    taken = set(cells)
    for cell, point in zip(cells, view.points, strict=True):
        lines[cell[0]] = put(lines[cell[0]], cell[1], "●", COLOURS[point.group % len(COLOURS)])
    left_over = []
    for cell, point in zip(cells, view.points, strict=True):
        label = safe(point.label)
        length = wide(label)
        near = ((row, start) for row in (0, -1, 1) for start in (1, -length, 2, -length - 1, -length // 2))
        spots = ((cell[0] + row, cell[1] + start) for row, start in near)
        fits = (
            (row, start)
            for row, start in spots
            if 0 <= row < rows and start >= 0 and start + length <= columns
            if not any((row, column) in taken for column in range(start - 1, start + length + 1) if column != cell[1])
        )
        home = next(fits, None)
        if home is None:
            left_over.append(f"{label} ({short(point.x)}, {short(point.y)})")
            continue
        taken.update((home[0], column) for column in range(home[1], home[1] + length))
        lines[home[0]] = put(lines[home[0]], home[1], label, COLOURS[point.group % len(COLOURS)])
    foot = [Text(safe(f"across: {view.x_label} · up: {view.y_label}"), style="dim")]
    if len(view.groups) > 1:
        key = Text()
        for number, name in enumerate(view.groups):
            key.append("● ", style=COLOURS[number % len(COLOURS)]).append(f"{safe(name)}   ")
        foot.append(key)
    if len(left_over) > LISTED:
        foot.append(Text(f"{len(left_over)} labels have no room: --out FILE.csv has all of them", style="dim"))
    elif left_over:
        foot.append(Text("no room for: " + ", ".join(left_over), style="dim"))
    return with_caption(view.title, view.caption, Group(*lines, *foot))


def put(line: Text, start: int, letters: str, style: str) -> Text:
    """A line with letters in the place of what was there."""
    return Text.assemble(line[:start], (letters, style), line[start + wide(letters) :])
