"""Curve: lines over a common x axis, with an optional reference band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearstory.errors import BadInput
from clearstory.lens.views.base import View


@dataclass(frozen=True)
class Line:
    """A named line through points; `dashed` for what is not the main thing.

    `of` names a line before it that it belongs to, as a law does to what was measured: it has that one's colour, and
    no place of its own in the legend.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False
    of: str | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise BadInput(f"line '{self.name}' has {len(self.x)} places and {len(self.y)} heights; give one for each")


@dataclass(frozen=True)
class Band:
    """A strip to compare lines with: at each place from `low` to `high`, such as the runs of several seeds."""

    name: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.low) == len(self.high):
            raise BadInput(
                f"band '{self.name}' has {len(self.x)} places, {len(self.low)} lows and {len(self.high)} highs; "
                "give one of each"
            )


@dataclass(frozen=True, kw_only=True)
class Curve(View):
    """Lines over a common axis: a training curve, a calibration. Labels carry their units: "bits per byte"."""

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
            if line.of is not None and line.of not in [other.name for other in self.lines[:number]]:
                raise BadInput(f"line '{line.name}' belongs to '{line.of}', which is no line before it; name one")

    def inks(self) -> list[int]:
        """The number of each line's colour."""
        inks: list[int] = []
        known: dict[str, int] = {}
        own = 0
        for line in self.lines:
            if line.of is None:
                # Two lines of one name are still two.
                known[line.name], own = own, own + 1
            inks.append(known[line.of or line.name])
        return inks

    def points(self, line: Line) -> list[tuple[float, float]]:
        """The points that can be drawn: numbers, and above zero where an axis is logarithmic."""
        return self.drawable(line.x, line.y)

    def edges(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The lower and the upper edge of the band, as far as they can be drawn."""
        if self.band is None:
            return [], []
        return self.drawable(self.band.x, self.band.low), self.drawable(self.band.x, self.band.high)

    def drawable(self, xs: tuple[float, ...], ys: tuple[float, ...]) -> list[tuple[float, float]]:
        """Those of the points that have a place on the axes."""
        pairs = zip(xs, ys, strict=True)
        # Beyond 1e300 differences overflow.
        return [
            (x, y)
            for x, y in pairs
            if abs(x) < 1e300 and abs(y) < 1e300 and (x > 0 or not self.log_x) and (y > 0 or not self.log_y)
        ]
