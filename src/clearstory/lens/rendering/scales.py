"""Scales: where numbers go on an axis, and which of them are written beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` laid out from `start` to `end`, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number.

        >>> Scale(0, 10, 0, 100)(2.5), Scale(1, 100, 0, 10, log=True)(10)
        (25.0, 5.0)
        """
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within, at most about so many."""
        return log_ticks(self.low, self.high, most) if self.log else even_ticks(self.low, self.high, most)


def even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten.

    >>> even_ticks(0.3, 4.2, 5)
    [1.0, 2.0, 3.0, 4.0]
    """
    if high - low < 1e-300:
        return [low]
    step = next_step((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Multiples, not sums: 0.1 + 0.1 + 0.1 is not 0.3.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(place * step, digits) for place in range(first, last + 1)]


def next_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there is room.

    >>> log_ticks(3, 700, 6)
    [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most + 1:
            break
    if len(ticks) > most + 1:
        ticks = ticks[:: -(-len(ticks) // most)]
    return ticks if len(ticks) > 1 else even_ticks(low, high, most)


def bounds(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """The least and the greatest with a little air around; never of no height."""
    low, high = min(values), max(values)
    # A billionth at least, or rounding would leave no room between neighbouring floats.
    air = (high - low) * margin or abs(high) * margin or 1.0
    air = max(air, abs(low) * 1e-9, abs(high) * 1e-9, 1e-300)
    return low - air, high + air


def shares(values: Sequence[object]) -> list[float]:
    """Each number as a share of the largest, for bars; 0 for what is no number.

    >>> shares([0.5, -0.25, None, math.nan])
    [1.0, 0.5, 0.0, 0.0]
    """
    sizes = [abs(float(v)) if isinstance(v, int | float) and math.isfinite(v) else 0.0 for v in values]
    most = max(sizes, default=0.0)
    return [size / most if most else 0.0 for size in sizes]


def short(value: float) -> str:
    """A number as people write it beside an axis.

    >>> [short(value) for value in (1500, 0.25, 2000000, 0, 1e-5, 12.0)]
    ['1,500', '0.25', '2M', '0', '1e-05', '12']
    """
    if value == 0:
        return "0"
    size = abs(value)
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= least:
            return f"{value / (1e3 if letter == 'k' else least):,.3g}{letter}" if size < 1e13 else f"{value:.2g}"
    if size < 1e-3:
        return f"{value:.1e}".replace(".0e", "e")
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"


def cell_text(cell: object) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{cell:.3g}") if 0 < abs(cell) < 1e-4 else f"{cell:,.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)
