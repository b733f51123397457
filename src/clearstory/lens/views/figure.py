"""Placed: the kinds of views whose parts have places: points on a map, boxes and arrows of a figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

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
    look: str | None = None

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


Tone = Literal["words", "places", "attention", "thinking", "norm", "memory", "answer", "add", "plain"]
"""What a box does, which gives it its colour; "add" is a small round sign."""


@dataclass(frozen=True)
class Box:
    """A part of a model: what it is, what goes in and comes out, and how many numbers it has learnt (None: it has no
    place for any). x, y is its upper left corner, in letters and lines; y grows downwards.
    """

    name: str
    x: int
    y: int
    width: int
    height: int
    shape: str = ""
    parameters: int | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Arrow:
    """A way through corners, with a head at the last one unless it goes on as another."""

    through: tuple[tuple[int, int], ...]
    head: bool = True


@dataclass(frozen=True)
class Group:
    """Boxes that come several times over, in a frame."""

    times: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Figure(View):
    """Boxes and arrows: a model drawn as papers draw it, from below upwards.

    >>> Figure(title="f", boxes=(Box("norm", 0, 0, 12, 3),), arrows=(Arrow(((6, 5), (6, 3))),)).size
    (12, 6)
    """

    kind: ClassVar[str] = "figure"
    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    groups: tuple[Group, ...] = ()
    look: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Letters across and lines down that all of it takes."""
        ends = [(box.x + box.width, box.y + box.height) for box in self.boxes]
        ends += [(group.x + group.width, group.y + group.height) for group in self.groups]
        ends += [(x + 1, y + 1) for arrow in self.arrows for x, y in arrow.through]
        return max((x for x, _ in ends), default=0), max((y for _, y in ends), default=0)

    def times(self, box: Box) -> int:
        """How many of a box there are: as often as the frame around it is repeated."""
        around = [
            group.times
            for group in self.groups
            if group.x <= box.x < group.x + group.width and group.y <= box.y < group.y + group.height
        ]
        return around[0] if around else 1
