"""Figure layout: columns of boxes that grow upwards, in characters and lines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from clearstory.lens.views.figure import Arrow, Box, BoxRole, Figure, RepeatFrame


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
