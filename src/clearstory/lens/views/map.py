"""Map: labelled points in a plane, both axes on one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


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
