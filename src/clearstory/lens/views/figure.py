"""Figure: boxes and arrows, such as a diagram of a model's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.lens.views.base import View


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
    caption: str | None = None

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
