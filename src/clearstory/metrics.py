"""Metrics: sums that can be added, and the yardsticks read off them.

Every total carries its own counts, so that parts of a text, ranks and files add up exactly; a mean of means does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, MissingExtra

NATS_PER_BIT = math.log(2)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well a model foresaw a text: sums over the tokens it was asked for, to be added up.

    Args:
        nats: surprise of all scored tokens together, −Σ ln p.
        tokens: how many were scored.
        bytes: bytes of text those tokens spell; None where that cannot be said, as with a tokenizer that loses some.
        reason: one sentence on why `bytes` is None.

    >>> half = Score(nats=math.log(2) * 8, tokens=4, bytes=8)
    >>> (half + half).bits_per_byte
    1.0
    """

    nats: float = 0.0
    tokens: int = 0
    bytes: int | None = 0
    reason: str | None = None

    def __add__(self, other: Score) -> Score:
        """Both texts together. What is not known of one is not known of both."""
        known = self.bytes is not None and other.bytes is not None
        return Score(
            nats=self.nats + other.nats,
            tokens=self.tokens + other.tokens,
            bytes=(self.bytes or 0) + (other.bytes or 0) if known else None,
            reason=None if known else self.reason or other.reason,
        )

    def without_bytes(self, reason: str) -> Score:
        """The same surprise over an unknown number of bytes."""
        return Score(nats=self.nats, tokens=self.tokens, bytes=None, reason=reason)

    @property
    def nats_per_token(self) -> float:
        """Mean surprise; nan when nothing was scored."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """e to the mean surprise: how many equally likely tokens the model hesitates between."""
        return perplexity(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits this model would need to store one byte of the text; None where bytes are not known."""
        return None if self.bytes is None else bits_per_byte(self.nats, self.bytes)


def bits_per_byte(nats: float, count: float) -> float:
    """Nats over a text of `count` bytes, as bits for each byte: the yardstick no tokenizer can bend.

    >>> bits_per_byte(math.log(2) * 8, 4)
    2.0
    """
    if count < 0:
        raise BadInput(f"a text of {count:,} bytes cannot be; count the bytes of what was scored")
    return nats / NATS_PER_BIT / count if count else math.nan


def perplexity(nats: float, count: int) -> float:
    """e to the nats per token; infinite where it is larger than a float can say.

    >>> round(perplexity(math.log(50) * 3, 3), 9)
    50.0
    """
    if not count:
        return math.nan
    try:
        return math.exp(nats / count)
    except OverflowError:
        return math.inf


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """How many character n-grams texts share with what they should be, from 0 to 100. Popović 2015; sacrebleu's."""
    return float(_sacrebleu().corpus_chrf(*_paired(texts, references)).score)


def bleu(texts: Sequence[str], references: Sequence[str], tokens: str | None = "13a") -> float:
    """How many n-grams of words texts share with what they should be, from 0 to 100. Papineni et al. 2002; sacrebleu's,
    with one of its tokenizers, or none for text whose words stand apart already.
    """
    return float(_sacrebleu().corpus_bleu(*_paired(texts, references), tokenize=tokens or "none", force=True).score)


def _paired(texts: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    if len(texts) != len(references) or not texts:
        raise BadInput(f"{len(texts):,} texts cannot be held against {len(references):,} references; give one for each")
    return list(texts), [list(references)]


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ModuleNotFoundError:
        raise MissingExtra("chrF and BLEU need sacrebleu: pip install 'clearstory[eval]'") from None
    return sacrebleu


RESAMPLES = 1000
"""Enough that the ends of a 95 % interval move by a few per cent of its width when the seed changes."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """How far one model's bits per byte lie above another's on the same units of text.

    Args:
        bits: the first's minus the second's.
        low: the interval's lower end.
        high: its upper end.
        better: share of the resamples in which the first needed fewer bits.
    """

    bits: float
    low: float
    high: float
    better: float


def bootstrap_interval(
    nats: Floats, sizes: Floats, *, level: float = CONFIDENCE, samples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Where bits per byte would lie on other text of the kind: the percentile bootstrap (Efron 1979) over units.

    A unit is a document or a stretch of text, with `nats` (U,) spent on its `sizes` (U,) bytes. Units are drawn again
    and again with replacement; nats and bytes are summed before they are divided. None for fewer than two units.

    >>> low, high = bootstrap(np.full(9, math.log(2)), np.full(9, 2.0))
    >>> round(low, 9), round(high, 9)
    (0.5, 0.5)
    """
    if len(sizes) < 2:
        return None
    drawn = draws(len(sizes), samples, seed)
    bits = (drawn @ nats) / (drawn @ sizes) / NATS_PER_BIT
    return ends(bits, level)


def paired_bootstrap(
    first: Floats, second: Floats, sizes: Floats, *, level: float = CONFIDENCE, samples: int = RESAMPLES, seed: int = 0
) -> PairedDifference | None:
    """Whether one model beats another: both on the same resampled units (Koehn 2004), so that what makes a text hard
    for both cancels out. Two models whose own intervals overlap can still differ in nearly every resample.

    `first` and `second` (U,) are nats on the same units of `sizes` (U,) bytes. None for fewer than two units.
    """
    if len(sizes) < 2:
        return None
    drawn = draws(len(sizes), samples, seed)
    bits = (drawn @ (first - second)) / (drawn @ sizes) / NATS_PER_BIT
    low, high = ends(bits, level)
    return PairedDifference(
        bits_per_byte(float((first - second).sum()), float(sizes.sum())), low, high, float((bits < 0).mean())
    )


def draws(units: int, samples: int, seed: int) -> Floats:
    """How often each resample holds each unit, (S, U): as many units as there are, with replacement."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=samples).astype(np.float64)


def ends(values: Floats, level: float) -> tuple[float, float]:
    """The two values between which `level` of all lie, as many beyond either."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
