"""SVG: views as drawings that stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from clearstory.lens.rendering.svg_canvas import INKS, PAD, WIDTH, Drawing, clip, text_width
from clearstory.lens.rendering.scales import Scale, bounds, cell_text, shares, short
from clearstory.lens.views import Curve, Figure, Grid, Map, TileGrid, Table, Tree, View, Report


def svg(view: View) -> str:
    """A view as one SVG document."""
    if isinstance(view, Report):
        return walk_svg(view)
    if isinstance(view, Curve):
        return curve_svg(view)
    if isinstance(view, Table):
        return table_svg(view)
    if isinstance(view, Grid) and view.texts is not None:
        from clearstory.lens.rendering.text_grid import worded_svg

        return worded_svg(view, view.texts)
    if isinstance(view, Grid):
        from clearstory.lens.rendering.grid import grid_svg

        return grid_svg(view)
    if isinstance(view, TileGrid):
        from clearstory.lens.rendering.tile_grid import mosaic_svg

        return mosaic_svg(view)
    if isinstance(view, Map):
        from clearstory.lens.rendering.map import map_svg

        return map_svg(view)
    if isinstance(view, Figure):
        from clearstory.lens.rendering.figure import figure_svg

        return figure_svg(view)
    if isinstance(view, Tree):
        from clearstory.lens.rendering.tree import tree_svg

        return tree_svg(view)
    from clearstory.lens.rendering.highlighted_text import spans_svg

    return spans_svg(view)


def walk_svg(view: Report) -> str:
    """The drawings of all steps, one below the other."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    for step in view.steps:
        part = svg(step)
        height = float(re.search(r' height="(\d+)"', part).group(1))  # type: ignore[union-attr]  # `done` writes it
        drawing.parts.append(part.replace("<svg ", f'<svg y="{drawing.y:.0f}" ', 1).strip())
        drawing.y += height
    return drawing.done(view.title)


def curve_svg(view: Curve) -> str:
    """Lines over an axis."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    drawn = [(line, view.points(line)) for line in view.lines]
    legend(drawing, view)
    points = [point for _, each in drawn for point in each]
    if not points:
        drawing.y += 24
        drawing.text(PAD, drawing.y, "There is nothing to draw yet.", 13)
        return drawing.done(view.title)
    lower, upper = view.edges()
    heights = [y for _, y in (*points, *lower, *upper)]
    low, high = (min(heights) / 1.2, max(heights) * 1.2) if view.log_y else bounds(heights)
    if min(heights) >= 0:
        low = max(low, 0.0)
    left, right = (end(x for x, _ in (*points, *lower)) for end in (min, max))
    drawing.y += 22
    drawing.text(PAD, drawing.y, view.y_label + (" (log scale)" if view.log_y else ""), 12)
    top = drawing.y + 14
    bottom = top + 300
    y = Scale(low, high, bottom, top, view.log_y)
    marks = y.ticks(6)
    gutter = PAD + max(text_width(short(mark), 12) for mark in marks) + 10
    # Room on the right for the last point's number.
    x = Scale(left, right, gutter, WIDTH - PAD - 46, view.log_x)
    for mark in marks:
        drawing.line(gutter, y(mark), WIDTH - PAD, y(mark), "rule")
        drawing.text(gutter - 8, y(mark) + 4, short(mark), 12, "soft num", "end")
    band_svg(drawing, [(x(a), y(b)) for a, b in (*lower, *reversed(upper))])
    drawing.line(gutter, bottom, WIDTH - PAD, bottom, "axis")
    for mark in x.ticks(7):
        drawing.line(x(mark), bottom, x(mark), bottom + 5, "axis")
        drawing.text(x(mark), bottom + 19, short(mark), 12, "soft num", "middle")
    taken: list[float] = []
    for number, (line, each) in zip(view.inks(), drawn, strict=True):
        path_svg(drawing, number, [(x(a), y(b)) for a, b in each], dashed(number, line.dashed))
        if each and line.of is None:
            place = clear_of(y(each[-1][1]) + 4, taken, top + 8, bottom)
            taken.append(place)
            drawing.text(x(each[-1][0]) + 8, place, short(each[-1][1]), 12, f"dot-{number % INKS} num", bold=True)
    drawing.y = bottom + 40
    drawing.text(WIDTH - PAD, drawing.y, view.x_label + (" (log scale)" if view.log_x else ""), 12, anchor="end")
    drawing.y -= 6
    own = [(line, each) for line, each in drawn if each and line.of is None]
    ends = "; ".join(f"{line.name} ends at {short(each[-1][1])}" for line, each in own)
    return drawing.done(f"{view.y_label} over {view.x_label}: {ends}.")


def dashed(number: int, asked: bool) -> bool:
    """Whether a line is dashed: because it was asked for, or to be told from the one of its colour."""
    return asked or number >= INKS


def clear_of(place: float, taken: Iterable[float], top: float, bottom: float) -> float:
    """A height near `place` that is no other label's."""
    steps = (place + way * step for step in range(0, 200, 2) for way in (1, -1))
    free = (at for at in steps if top <= at <= bottom and all(abs(at - other) >= 13 for other in taken))
    return next(free, place)


def legend(drawing: Drawing, view: Curve) -> None:
    """A swatch and a name for each line, in as many rows as needed; none for a single line that the title names."""
    own = [(line, ink) for line, ink in zip(view.lines, view.inks(), strict=True) if line.of is None]
    if len(own) < 2 and view.band is None:
        return
    x, drawing.y = float(PAD), drawing.y + 12
    entries = [(line.name, f"line-{ink % INKS}", dashed(ink, line.dashed)) for line, ink in own]
    entries += [(view.band.name, "level", False)] if view.band is not None else []
    for name, look, dash in entries:
        name = clip(name, 240, 12)
        width = 34 + text_width(name, 12)
        if x + width > WIDTH - PAD and x > PAD:
            x, drawing.y = PAD, drawing.y + 20
        thick = 8 if look == "level" else 2.5
        faint = ' opacity="0.45"' if look == "level" else ""
        dashes = ' stroke-dasharray="5 3"' if dash else ""
        drawing.parts.append(
            f'<line x1="{x:.1f}" y1="{drawing.y - 4:.1f}" x2="{x + 18:.1f}" y2="{drawing.y - 4:.1f}" class="{look}" '
            f'stroke-width="{thick:g}"{faint}{dashes}/>'
        )
        drawing.text(x + 25, drawing.y, name, 12, "ink")
        x += width + 14
    drawing.y += 4


def band_svg(drawing: Drawing, outline: Sequence[tuple[float, float]]) -> None:
    """The strip to compare with, behind the lines."""
    if outline:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        drawing.parts.append(f'<polygon class="band" points="{way}" opacity="0.3"/>')


def path_svg(drawing: Drawing, number: int, points: Sequence[tuple[float, float]], dash: bool) -> None:
    """One line and a dot at its end."""
    if not points:
        return
    ink = number % INKS
    if len(points) > 1:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in thinned(points))
        dashes = ' stroke-dasharray="5 3"' if dash else ""
        drawing.parts.append(
            f'<polyline points="{way}" class="line-{ink}" fill="none" stroke-width="2" stroke-linejoin="round" '
            f'stroke-linecap="round"{dashes}/>'
        )
    x, y = points[-1]
    drawing.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot-{ink}"/>')


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """No more points than can be told apart: of those on one pixel, the lowest and the highest stay."""
    if len(points) <= 2 * WIDTH:
        return points
    columns: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        columns.setdefault(round(point[0]), []).append(point)
    kept = [(points[0],)] + [
        tuple(sorted({min(c, key=lambda p: p[1]), max(c, key=lambda p: p[1])})) for c in columns.values()
    ]
    return [point for each in kept for point in each] + [points[-1]]


def table_svg(view: Table) -> str:
    """Rows of cells, one column as bars."""
    drawing = Drawing(view.title, [])
    drawing.head(view.caption)
    cells = [[cell_text(cell) for cell in row] for row in view.rows]
    numbers = [all(isinstance(cell, int | float | None) for cell in view.column(name)) for name in view.columns]
    widths = [
        min(260.0, max([text_width(name, 12), *(text_width(row[i], 13) for row in cells)]) + 22)
        for i, name in enumerate(view.columns)
    ]
    bar = view.columns.index(view.bar) if view.bar is not None else None
    widths = shared_out(widths, numbers, bar)
    drawing.y += 18
    x = float(PAD)
    starts = []
    for i, name in enumerate(view.columns):
        starts.append(x)
        at = x + widths[i] - 14 if numbers[i] and i != bar else x
        drawing.text(
            at, drawing.y, clip(name, widths[i], 12), 12, "soft", "end" if numbers[i] and i != bar else "start"
        )
        x += widths[i]
    drawing.y += 8
    drawing.line(PAD, drawing.y, WIDTH - PAD, drawing.y, "axis")
    bars = shares(view.column(view.bar)) if view.bar is not None else [0.0] * len(cells)
    for row, share in zip(cells, bars, strict=True):
        middle = drawing.y + 13
        for i, text in enumerate(row):
            if i == bar:
                length = (widths[i] - 68) * share
                # Below zero an outline, as in grids.
                ink = 'class="level" fill="none"' if text.startswith("-") else 'class="bar"'
                drawing.parts.append(
                    f'<rect {ink} x="{starts[i]:.1f}" y="{middle - 7:.1f}" width="{max(length, 1):.1f}" '
                    f'height="14" rx="2"/>'
                )
                drawing.text(starts[i] + max(length, 1) + 7, middle + 4.5, text, 12.5, "ink num")
            elif numbers[i]:
                drawing.text(starts[i] + widths[i] - 14, middle + 4.5, text, 13, "soft num", "end")
            else:
                drawing.text(
                    starts[i], middle + 4.5, clip(text, widths[i] - 8, 13), 13, "ink mono" if i == 0 else "ink"
                )
        drawing.y += 25
        drawing.line(PAD, drawing.y, WIDTH - PAD, drawing.y, "rule")
    drawing.y -= 8
    return drawing.done(f"{len(view.rows)} rows: {', '.join(view.columns)}.")


BAR = 150.0
"""Pixels that a column of bars has at least."""


def shared_out(widths: Sequence[float], numbers: Sequence[bool], bar: int | None) -> list[float]:
    """Widths of columns that stay on the paper: numbers keep theirs, bars have what is left, text is cut where it must.

    >>> shared_out([100.0, 60.0, 80.0], [False, True, True], 2), shared_out([260.0, 260.0, 260.0], [False] * 3, None)
    ([100.0, 60.0, 552.0], [237.3..., 237.3..., 237.3...])
    """
    room = float(WIDTH - 2 * PAD)
    kept = [at for at, number in enumerate(numbers) if number and at != bar]
    texts = [at for at, number in enumerate(numbers) if not number and at != bar]
    room -= sum(widths[at] for at in kept)
    wanted, own = (
        sum(widths[at] for at in texts),
        0.0 if bar is None else max(BAR, room - sum(widths[at] for at in texts)),
    )
    share = min(1.0, max(60.0 * len(texts), room - own) / wanted) if wanted else 1.0
    return [own if at == bar else width * share if at in texts else width for at, width in enumerate(widths)]
