"""Scales: from numbers to positions on an axis, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from numbers in `low` to `high` to positions in `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a number.

        >>> Scale(0, 10, 0, 100)(2.5), Scale(1, 100, 0, 10, log=True)(10)
        (25.0, 5.0)
        """
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        fraction = (at - low) / (high - low) if high > low else 0.5
        return self.start + fraction * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the scale, about `most` at most."""
        return log_ticks(self.low, self.high, most) if self.log else even_ticks(self.low, self.high, most)


def even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten.

    >>> even_ticks(0.3, 4.2, 5)
    [1.0, 2.0, 3.0, 4.0]
    """
    if high - low < 1e-300:
        return [low]
    step = round_step((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Multiples, not sums: 0.1 + 0.1 + 0.1 is not 0.3.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(multiple * step, digits) for multiple in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them if they fit.

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


def padded_range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """The minimum and maximum with a margin, never equal."""
    low, high = min(values), max(values)
    # At least a billionth, or rounding would leave no distance between neighbouring floats.
    pad = (high - low) * margin or abs(high) * margin or 1.0
    pad = max(pad, abs(low) * 1e-9, abs(high) * 1e-9, 1e-300)
    return low - pad, high + pad


def relative_magnitudes(values: Sequence[object]) -> list[float]:
    """Absolute values divided by the largest, for bars and shades; 0 for what is not a finite number.

    >>> relative_magnitudes([0.5, -0.25, None, math.nan])
    [1.0, 0.5, 0.0, 0.0]
    """
    sizes = [abs(float(v)) if isinstance(v, int | float) and math.isfinite(v) else 0.0 for v in values]
    most = max(sizes, default=0.0)
    return [size / most if most else 0.0 for size in sizes]
