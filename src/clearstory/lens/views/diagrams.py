"""Figures of boxes and arrows with their layout, and trees of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from clearstory.errors import BadInput
from clearstory.lens.views.base import View

BoxRole = Literal["embedding", "position", "attention", "mlp", "norm", "state", "output", "add", "other"]
"""Function of a box, which determines its colour; "add" is a small circle with a sign."""


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


@dataclass
class FigureColumn:
    """A column of boxes that grows upwards (to smaller y) from line 0. Arrows run through the character `middle`.

    `branch` is the line at which the residual stream branches, until `join_branch` closes it. `connected` is whether
    the next box gets an arrow from the one below; it is False before the first box.
    """

    x: int
    width: int
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    frames: list[RepeatFrame] = field(default_factory=list)
    top: int = 0
    branch: int | None = None
    connected: bool = False

    @property
    def middle(self) -> int:
        """The x position of the column's middle character."""
        return self.x + self.width // 2

    def add_box(self, name: str, shape: str = "", parameters: int | None = None, role: BoxRole = "other") -> Box:
        """Add a box on top, with an arrow from the box below."""
        lines = 1 + bool(shape) + (parameters is not None)
        self.add_arrow()
        box = Box(name, self.x, self.top - lines - 2, self.width, lines + 2, shape, parameters, role)
        return self.place_box(box)

    def place_box(self, box: Box) -> Box:
        """Add a box that already has a position."""
        self.boxes.append(box)
        self.top, self.connected = box.y, True
        return box

    def add_detached_box(self, name: str, shape: str, parameters: int) -> None:
        """Add a box of parameters without arrows, with an empty line above it."""
        self.place_box(Box(name, self.x, self.top - 5, self.width, 5, shape, parameters, "position"))
        self.top, self.connected = self.top - 1, False

    def add_arrow(self) -> None:
        """Add an arrow upwards over one line, if there is a box below."""
        if self.connected:
            self.arrows.append(Arrow(((self.middle, self.top), (self.middle, self.top - 1))))
            self.top -= 1

    def extend_stream(self) -> None:
        """Continue the residual stream upwards over one line, without an arrowhead."""
        self.arrows.append(Arrow(((self.middle, self.top), (self.middle, self.top - 1)), head=False))
        self.top -= 1

    def add_sum(self) -> int:
        """Add a sum on top and return its line, where an arrow from the side can end."""
        self.add_arrow()
        self.place_box(Box("+", self.middle - 1, self.top - 1, 3, 1, role="add"))
        return self.top

    def start_branch(self) -> None:
        """Start a residual branch: one path continues upwards, the other passes around the boxes that follow."""
        self.extend_stream()
        self.branch = self.top

    def join_branch(self) -> None:
        """End a residual branch: both paths are added."""
        assert self.branch is not None
        lane, at = self.x + self.width + 1, self.add_sum()
        self.arrows.append(Arrow(((self.middle, self.branch), (lane, self.branch), (lane, at), (self.middle + 2, at))))
        self.branch = None

    def add_frame(self, times: int, bottom: int) -> None:
        """Add a frame around everything from line `bottom` up, repeated `times` times."""
        self.frames.append(RepeatFrame(times, self.x - 2, self.top - 1, self.width + 6, bottom - self.top + 1))


def layout_figure(
    title: str, caption: str | None, columns: list[FigureColumn], arrows: tuple[Arrow, ...] = ()
) -> Figure:
    """A figure of columns side by side, shifted so that its topmost line is line 0."""
    boxes = [box for column in columns for box in column.boxes]
    frames = [frame for column in columns for frame in column.frames]
    drawn = [*(arrow for column in columns for arrow in column.arrows), *arrows]
    top = min(
        [box.y for box in boxes] + [frame.y for frame in frames] + [y for arrow in drawn for _, y in arrow.points]
    )
    return Figure(
        title=title,
        caption=caption,
        boxes=tuple(replace(box, y=box.y - top) for box in boxes),
        frames=tuple(replace(frame, y=frame.y - top) for frame in frames),
        arrows=tuple(replace(arrow, points=tuple((x, y - top) for x, y in arrow.points)) for arrow in drawn),
    )


@dataclass(frozen=True)
class Node:
    """A token of a tree: the index of its parent node (None at the root), its number, and its status in the search."""

    text: str
    parent: int | None
    value: float
    status: Literal["kept", "finished", "pruned"] = "kept"


@dataclass(frozen=True, kw_only=True)
class Tree(View):
    """Tokens that follow tokens. Parents precede their children; `best` is the index of the best path's last node.

    >>> Tree(title="t", nodes=(Node("a", None, -1.0), Node("b", 0, -2.0), Node("c", 0, -3.0)), best=1).levels()
    [[0], [1, 2]]
    """

    kind: ClassVar[str] = "tree"
    title: str
    nodes: tuple[Node, ...]
    unit: str = ""
    best: int | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            if node.parent is not None and not 0 <= node.parent < index:
                raise BadInput(f"node {index} has the parent {node.parent}; parents must precede their children")

    def levels(self) -> list[list[int]]:
        """The node indices by depth."""
        depths: list[int] = []
        for node in self.nodes:
            depths.append(0 if node.parent is None else depths[node.parent] + 1)
        return [
            [index for index in range(len(depths)) if depths[index] == depth]
            for depth in range(max(depths, default=-1) + 1)
        ]

    def best_path(self) -> set[int]:
        """The indices of the nodes on the best path."""
        path: set[int] = set()
        index = self.best
        while index is not None:
            path.add(index)
            index = self.nodes[index].parent
        return path
