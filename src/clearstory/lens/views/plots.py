"""Curves over a common x axis, and maps of labelled points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y).

    `dashed` marks a secondary line. `same_color_as` is the name of an earlier line, such as the measurements to which
    this line was fitted: the line has the same colour and no separate legend entry.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False
    same_color_as: str | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise BadInput(
                f"line '{self.name}' has {len(self.x)} x values and {len(self.y)} y values; give one for each"
            )


@dataclass(frozen=True)
class Band:
    """A reference band from `low` to `high` at each x, such as the range over several seeds."""

    name: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.low) == len(self.high):
            raise BadInput(
                f"band '{self.name}' has {len(self.x)} x values, {len(self.low)} lows and {len(self.high)} highs; "
                "give one of each"
            )


@dataclass(frozen=True, kw_only=True)
class Curve(View):
    """Lines over a common x axis, such as a learning curve. Axis labels include the unit: "bits per byte"."""

    kind: ClassVar[str] = "curve"
    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    band: Band | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        for number, line in enumerate(self.lines):
            if line.same_color_as is not None and line.same_color_as not in [each.name for each in self.lines[:number]]:
                raise BadInput(
                    f"line '{line.name}' has the colour of '{line.same_color_as}', which is no earlier line; name one"
                )

    def color_indices(self) -> list[int]:
        """The colour index of each line, from 0."""
        indices: list[int] = []
        by_name: dict[str, int] = {}
        count = 0
        for line in self.lines:
            if line.same_color_as is None:
                # Two lines with the same name still have two colours.
                by_name[line.name], count = count, count + 1
            indices.append(by_name[line.same_color_as or line.name])
        return indices

    def plottable_points(self, line: Line) -> Points:
        """The points of a line that can be plotted: finite, and positive on a logarithmic axis."""
        return self.plottable(line.x, line.y)

    def band_edges(self) -> tuple[Points, Points]:
        """The plottable points of the band's lower and upper edge; empty without a band."""
        if self.band is None:
            return [], []
        return self.plottable(self.band.x, self.band.low), self.plottable(self.band.x, self.band.high)

    def plottable(self, xs: tuple[float, ...], ys: tuple[float, ...]) -> Points:
        """The points (x, y) that lie on the axes."""
        pairs = zip(xs, ys, strict=True)
        # Beyond 1e300 differences overflow.
        return [
            (x, y)
            for x, y in pairs
            if abs(x) < 1e300 and abs(y) < 1e300 and (x > 0 or not self.log_x) and (y > 0 or not self.log_y)
        ]


@dataclass(frozen=True)
class Point:
    """A labelled point. `group` is the index of its colour; `note` is shown when it is pointed at."""

    label: str
    x: float
    y: float
    group: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Map(View):
    """Labelled points in a plane whose distances are meaningful: both axes have the same scale.

    `links` are pairs of point indices that a line connects; `groups` are the names of the colours.

    >>> points = (Point("king", 0.0, 0.0), Point("queen", 3.0, 4.0))
    >>> Map(title="Two words", points=points, links=((0, 1),), x_label="first", y_label="second").to_json()["links"]
    [[0, 1]]
    """

    kind: ClassVar[str] = "map"
    title: str
    points: tuple[Point, ...]
    links: tuple[tuple[int, int], ...] = ()
    groups: tuple[str, ...] = ()
    x_label: str
    y_label: str
    caption: str | None = None

    def __post_init__(self) -> None:
        count = len(self.points)
        if wrong := next((link for link in self.links if not all(0 <= end < count for end in link)), None):
            raise BadInput(f"a link is {wrong} and the map has {count} points; link two of 0 to {count - 1}")
        if self.groups and any(not 0 <= point.group < len(self.groups) for point in self.points):
            raise BadInput(f"the map names {len(self.groups)} groups and a point is of another; name one for each")

    def finite(self) -> Map:
        """The map without points at nan or infinity, and without their links."""
        # Beyond 1e150 squares of differences overflow.
        kept = [index for index, point in enumerate(self.points) if abs(point.x) < 1e150 and abs(point.y) < 1e150]
        if len(kept) == len(self.points):
            return self
        links = tuple((kept.index(a), kept.index(b)) for a, b in self.links if a in kept and b in kept)
        return replace(self, points=tuple(self.points[index] for index in kept), links=links)
