"""Figure: boxes and arrows, such as a diagram of a model's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clearstory.lens.views.base import View

BoxRole = Literal["embedding", "position", "attention", "mlp", "norm", "state", "output", "add", "other"]
"""What a box does, which decides its colour; "add" is a small circle with a sign."""


@dataclass(frozen=True)
class Box:
    """A component of a model. `x`, `y` is the upper left corner, in characters and lines; y grows downwards.

    `shape` describes its input and output; `parameters` is their number, None for a component that cannot have any.
    """

    name: str
    x: int
    y: int
    width: int
    height: int
    shape: str = ""
    parameters: int | None = None
    role: BoxRole = "other"


@dataclass(frozen=True)
class Arrow:
    """A line through `points`, with an arrowhead at the last one if `head`."""

    points: tuple[tuple[int, int], ...]
    head: bool = True


@dataclass(frozen=True)
class RepeatFrame:
    """A dashed frame around boxes that are repeated `times` times, such as the layers of a stack."""

    times: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Figure(View):
    """A diagram of boxes and arrows, read from the bottom to the top.

    >>> Figure(title="f", boxes=(Box("norm", 0, 0, 12, 3),), arrows=(Arrow(((6, 5), (6, 3))),)).size
    (12, 6)
    """

    kind: ClassVar[str] = "figure"
    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    frames: tuple[RepeatFrame, ...] = ()
    caption: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width in characters and height in lines."""
        ends = [(box.x + box.width, box.y + box.height) for box in self.boxes]
        ends += [(frame.x + frame.width, frame.y + frame.height) for frame in self.frames]
        ends += [(x + 1, y + 1) for arrow in self.arrows for x, y in arrow.points]
        return max((x for x, _ in ends), default=0), max((y for _, y in ends), default=0)

    def repeats(self, box: Box) -> int:
        """How many copies of a box the model has: the `times` of the frame around it, or 1."""
        around = [
            frame.times
            for frame in self.frames
            if frame.x <= box.x < frame.x + frame.width and frame.y <= box.y < frame.y + frame.height
        ]
        return around[0] if around else 1
