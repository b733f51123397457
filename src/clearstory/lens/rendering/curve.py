"""Rendering of curves: lines over an axis, with a band behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clearstory.lens.rendering.canvas import (
    HEIGHT,
    PAD,
    TERMINAL_COLORS,
    WIDTH,
    BrailleCanvas,
    Scale,
    SvgCanvas,
    padded_range,
    sanitize,
    text_width,
    truncate_text,
    with_caption,
)
from clearstory.lens.rendering.palette import LINE_COLORS
from clearstory.lens.views.formatting import format_number
from clearstory.lens.views.plots import Curve, Line, Points

EMPTY = "There is nothing to draw yet."


def curve_svg(view: Curve) -> str:
    """A curve as SVG."""
    canvas = SvgCanvas(view.title, [])
    canvas.header(view.caption)
    drawn = [(line, view.plottable_points(line)) for line in view.lines]
    draw_legend(canvas, view)
    points = [point for _, each in drawn for point in each]
    if not points:
        return canvas.empty_document(EMPTY)
    lower, upper = view.band_edges()
    heights = [y for _, y in (*points, *lower, *upper)]
    low, high = (min(heights) / 1.2, max(heights) * 1.2) if view.log_y else padded_range(heights)
    if min(heights) >= 0:
        low = max(low, 0.0)
    left, right = (end(x for x, _ in (*points, *lower)) for end in (min, max))
    canvas.y += 22
    canvas.text(PAD, canvas.y, axis_label(view.y_label, view.log_y), 12)
    top = canvas.y + 14
    bottom = top + 300
    y = Scale(low, high, bottom, top, view.log_y)
    ticks = y.ticks(6)
    gutter = PAD + max(text_width(format_number(tick), 12) for tick in ticks) + 10
    # Space on the right for the number of the last point.
    x = Scale(left, right, gutter, WIDTH - PAD - 46, view.log_x)
    for tick in ticks:
        canvas.line(gutter, y(tick), WIDTH - PAD, y(tick), "rule")
        canvas.text(gutter - 8, y(tick) + 4, format_number(tick), 12, "soft num", "end")
    draw_band(canvas, [(x(a), y(b)) for a, b in (*lower, *reversed(upper))])
    canvas.line(gutter, bottom, WIDTH - PAD, bottom, "axis")
    for tick in x.ticks(7):
        canvas.line(x(tick), bottom, x(tick), bottom + 5, "axis")
        canvas.text(x(tick), bottom + 19, format_number(tick), 12, "soft num", "middle")
    taken: list[float] = []
    for color, (line, each) in zip(view.color_indices(), drawn, strict=True):
        draw_path(canvas, color, [(x(a), y(b)) for a, b in each], is_dashed(color, line.dashed))
        if each and line.same_color_as is None:
            height = free_height(y(each[-1][1]) + 4, taken, top + 8, bottom)
            taken.append(height)
            number = format_number(each[-1][1])
            canvas.text(x(each[-1][0]) + 8, height, number, 12, f"dot-{color % LINE_COLORS} num", bold=True)
    canvas.y = bottom + 40
    canvas.text(WIDTH - PAD, canvas.y, axis_label(view.x_label, view.log_x), 12, anchor="end")
    canvas.y -= 6
    primary = [(line, each) for line, each in drawn if each and line.same_color_as is None]
    ends = "; ".join(f"{line.name} ends at {format_number(each[-1][1])}" for line, each in primary)
    return canvas.document(f"{view.y_label} over {view.x_label}: {ends}.")


def axis_label(label: str, log: bool) -> str:
    """An axis label, with a note if the scale is logarithmic."""
    return label + (" (log scale)" if log else "")


def is_dashed(color: int, dashed: bool) -> bool:
    """Whether a line is dashed: because it is secondary, or to distinguish it from another line of the same colour."""
    return dashed or color >= LINE_COLORS


def free_height(height: float, taken: Iterable[float], top: float, bottom: float) -> float:
    """The height nearest to the given one that does not collide with another label."""
    candidates = (height + sign * offset for offset in range(0, 200, 2) for sign in (1, -1))
    free = (at for at in candidates if top <= at <= bottom and all(abs(at - other) >= 13 for other in taken))
    return next(free, height)


def draw_legend(canvas: SvgCanvas, view: Curve) -> None:
    """Draw a swatch and a name for each line, in rows; nothing for a single line."""
    primary = [
        (line, color)
        for line, color in zip(view.lines, view.color_indices(), strict=True)
        if line.same_color_as is None
    ]
    if len(primary) < 2 and view.band is None:
        return
    x, canvas.y = float(PAD), canvas.y + 12
    entries = [(line.name, f"line-{color % LINE_COLORS}", is_dashed(color, line.dashed)) for line, color in primary]
    entries += [(view.band.name, "level", False)] if view.band is not None else []
    for name, css_class, dashed in entries:
        name = truncate_text(name, 240, 12)
        width = 34 + text_width(name, 12)
        if x + width > WIDTH - PAD and x > PAD:
            x, canvas.y = PAD, canvas.y + 20
        thickness = 8 if css_class == "level" else 2.5
        opacity = ' opacity="0.45"' if css_class == "level" else ""
        dashes = ' stroke-dasharray="5 3"' if dashed else ""
        canvas.elements.append(
            f'<line x1="{x:.1f}" y1="{canvas.y - 4:.1f}" x2="{x + 18:.1f}" y2="{canvas.y - 4:.1f}" class="{css_class}" '
            f'stroke-width="{thickness:g}"{opacity}{dashes}/>'
        )
        canvas.text(x + 25, canvas.y, name, 12, "ink")
        x += width + 14
    canvas.y += 4


def draw_band(canvas: SvgCanvas, outline: Points) -> None:
    """Draw the reference band."""
    if outline:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        canvas.elements.append(f'<polygon class="band" points="{points}" opacity="0.3"/>')


def draw_path(canvas: SvgCanvas, color: int, points: Points, dashed: bool) -> None:
    """Draw a line and a dot at its end."""
    if not points:
        return
    color %= LINE_COLORS
    if len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in thin_points(points))
        dashes = ' stroke-dasharray="5 3"' if dashed else ""
        canvas.elements.append(
            f'<polyline points="{path}" class="line-{color}" fill="none" stroke-width="2" stroke-linejoin="round" '
            f'stroke-linecap="round"{dashes}/>'
        )
    x, y = points[-1]
    canvas.elements.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot-{color}"/>')


def thin_points(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most about four points per pixel column: the lowest and the highest of each, the first and the last."""
    if len(points) <= 2 * WIDTH:
        return points
    columns: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        columns.setdefault(round(point[0]), []).append(point)
    kept = [(points[0],)] + [
        tuple(sorted({min(c, key=lambda p: p[1]), max(c, key=lambda p: p[1])})) for c in columns.values()
    ]
    return [point for each in kept for point in each] + [points[-1]]


def curve_terminal(view: Curve, width: int) -> RenderableType:
    """A curve for the terminal, in braille dots, two by four per character."""
    drawn = [(line, view.plottable_points(line)) for line in view.lines]
    points = [point for _, each in drawn for point in each]
    if not points:
        return with_caption(view.title, view.caption, Text(EMPTY))
    lower, upper = view.band_edges()
    heights = [y for _, y in (*points, *lower, *upper)]
    low, high = (min(heights) / 1.05, max(heights) * 1.05) if view.log_y else padded_range(heights, 0.02)
    middle = math.sqrt(low * high) if view.log_y else (low + high) / 2
    ticks = [format_number(high), format_number(middle), format_number(low)]
    gutter = max(map(len, ticks)) + 1
    columns = max(20, min(width, 100) - gutter - 2)
    left_end, right_end = (end(x for x, _ in (*points, *lower)) for end in (min, max))
    x = Scale(left_end, right_end, 0, 2 * columns - 1, view.log_x)
    y = Scale(low, high, 4 * HEIGHT - 1, 0, view.log_y)
    canvas = BrailleCanvas(columns)
    for edge in (lower, upper):
        canvas.path([(x(a), y(b)) for a, b in edge], None)
    for color, (_, each) in zip(view.color_indices(), drawn, strict=True):
        canvas.path([(x(a), y(b)) for a, b in each], color)
    lines = [Text(axis_label(sanitize(view.y_label), view.log_y), style="dim")]
    sides = {0: ticks[0], HEIGHT // 2: ticks[1], HEIGHT - 1: ticks[2]}
    for row in range(HEIGHT):
        lines.append(Text(f"{sides.get(row, ''):>{gutter}}│", style="dim").append_text(canvas.row(row)))
    left, right = format_number(left_end), format_number(right_end)
    label = axis_label(sanitize(view.x_label), view.log_x)
    lines.append(Text(" " * gutter + "└" + "─" * columns, style="dim"))
    lines.append(
        Text(" " * (gutter + 1) + left + label.center(max(1, columns - len(left) - len(right))) + right, style="dim")
    )
    return with_caption(view.title, view.caption, Group(*lines, terminal_legend(view, drawn)))


def terminal_legend(view: Curve, drawn: Sequence[tuple[Line, Points]]) -> Text:
    """The name of each line with its last number, and the name of the band."""
    legend = Text()
    for color, (line, each) in zip(view.color_indices(), drawn, strict=True):
        if line.same_color_as is not None:
            continue
        end = f" {format_number(each[-1][1])}" if each else ""
        style = TERMINAL_COLORS[color % len(TERMINAL_COLORS)]
        legend.append("━━ ", style=style).append(f"{sanitize(line.name)}{end}   ")
    if view.band is not None:
        legend.append("⠒⠒ ", style="dim").append(sanitize(view.band.name))
    return legend
