"""Tower: boxes put one above the other, as an architecture is drawn, in letters and lines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from clearstory.lens.views.figure import Arrow, Box, Figure, Group, Tone


@dataclass
class Tower:
    """A column of boxes that grows upwards (to smaller y) from line 0; `middle` is the letter that arrows go through.

    `branch` remembers where the stream parts, to be joined by `join`; nothing is `flowing` below the first box put.
    """

    x: int
    width: int
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    top: int = 0
    branch: int | None = None
    flowing: bool = False

    @property
    def middle(self) -> int:
        """The letter in the middle."""
        return self.x + self.width // 2

    def put(self, name: str, shape: str = "", parameters: int | None = None, tone: Tone = "plain") -> Box:
        """A box on top, and an arrow into it from what is below."""
        lines = 1 + bool(shape) + (parameters is not None)
        self.rise()
        box = Box(name, self.x, self.top - lines - 2, self.width, lines + 2, shape, parameters, tone)
        return self.keep(box)

    def keep(self, box: Box) -> Box:
        """A box whose place is known already."""
        self.boxes.append(box)
        self.top, self.flowing = box.y, True
        return box

    def stand(self, name: str, shape: str, parameters: int) -> None:
        """A box that nothing flows through, with air above it."""
        self.keep(Box(name, self.x, self.top - 5, self.width, 5, shape, parameters, "places"))
        self.top, self.flowing = self.top - 1, False

    def rise(self) -> None:
        """An arrow upwards over one line, where there is something below."""
        if self.flowing:
            self.arrows.append(Arrow(((self.middle, self.top), (self.middle, self.top - 1))))
            self.top -= 1

    def go_on(self) -> None:
        """The stream, over one line."""
        self.arrows.append(Arrow(((self.middle, self.top), (self.middle, self.top - 1)), head=False))
        self.top -= 1

    def plus(self) -> int:
        """A sum on top: of the stream and what comes from the side, on the line that is given back."""
        self.rise()
        self.keep(Box("+", self.middle - 1, self.top - 1, 3, 1, tone="add"))
        return self.top

    def part(self) -> None:
        """The stream parts: one way goes on, the other around what follows."""
        self.go_on()
        self.branch = self.top

    def join(self) -> None:
        """Both ways are added up."""
        assert self.branch is not None
        lane, at = self.x + self.width + 1, self.plus()
        self.arrows.append(Arrow(((self.middle, self.branch), (lane, self.branch), (lane, at), (self.middle + 2, at))))
        self.branch = None

    def repeat(self, times: int, bottom: int) -> None:
        """A frame around all from line `bottom` up, which comes so often."""
        self.groups.append(Group(times, self.x - 2, self.top - 1, self.width + 6, bottom - self.top + 1))


def figure(title: str, look: str | None, towers: list[Tower], arrows: tuple[Arrow, ...] = ()) -> Figure:
    """Towers side by side, shifted so that all of it is below line 0."""
    boxes = [box for tower in towers for box in tower.boxes]
    groups = [group for tower in towers for group in tower.groups]
    drawn = [*(arrow for tower in towers for arrow in tower.arrows), *arrows]
    up = min([box.y for box in boxes] + [group.y for group in groups] + [y for way in drawn for _, y in way.through])
    return Figure(
        title=title,
        caption=look,
        boxes=tuple(replace(box, y=box.y - up) for box in boxes),
        groups=tuple(replace(group, y=group.y - up) for group in groups),
        arrows=tuple(replace(arrow, through=tuple((x, y - up) for x, y in arrow.through)) for arrow in drawn),
    )
