"""Map: labelled points in a plane, both axes on one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Point:
    """A named place. `group` is the number of its colour; `note` says more in words."""

    label: str
    x: float
    y: float
    group: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Map(View):
    """Points whose distances mean something: both axes have one scale. Words by their vectors, a path layer by layer.

    `links` are pairs of points, by their numbers, with a line between them; `groups` name the colours.

    >>> there = (Point("king", 0.0, 0.0), Point("queen", 3.0, 4.0))
    >>> Map(title="Two words", points=there, links=((0, 1),), x_label="first", y_label="second").to_json()["links"]
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

    @property
    def drawable(self) -> Map:
        """The same without the points that have no place (nan, infinity) and their links."""
        # Beyond 1e150 squares of differences overflow.
        kept = [at for at, point in enumerate(self.points) if abs(point.x) < 1e150 and abs(point.y) < 1e150]
        if len(kept) == len(self.points):
            return self
        links = tuple((kept.index(a), kept.index(b)) for a, b in self.links if a in kept and b in kept)
        return replace(self, points=tuple(self.points[at] for at in kept), links=links)
