"""Curve: lines over a common x axis, with an optional reference band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y).

    `dashed` marks a secondary line. `same_color_as` is the name of an earlier line, such as the measurements that this
    line was fitted to: the line takes that line's colour and has no legend entry of its own.
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
