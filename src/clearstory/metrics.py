"""Metrics: scores as sums that can be added, bits per byte, chrF and BLEU, and bootstrap confidence intervals.

Every sum has its own count, so that parts of a text, ranks and files add up exactly; a mean of means does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, MissingExtra

IGNORE_INDEX = -100
"""Target that is not scored: padding, or a token given as context only. PyTorch's own convention."""

NATS_PER_BIT = math.log(2)

LIKELIHOOD = "likelihood"
"""Measure of causal models: the probability of the text under the chain rule."""

PSEUDO_LIKELIHOOD = "pseudo-likelihood"
"""Measure of encoders: the product of each token's probability given all others, for a part of the text."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Additive score of a model on a text: sums over the scored tokens.

    Args:
        nats: negative log-likelihood of all scored tokens, −Σ ln p.
        tokens: number of scored tokens.
        bytes: bytes of text of these tokens; None if unknown, as with a lossy tokenizer.
        reason: one sentence with the reason why `bytes` is None.

    >>> half = Score(nats=math.log(2) * 8, tokens=4, bytes=8)
    >>> (half + half).bits_per_byte
    1.0
    """

    nats: float = 0.0
    tokens: int = 0
    bytes: int | None = 0
    reason: str | None = None

    def __add__(self, other: Score) -> Score:
        """The score of both texts. Bytes that are unknown for one are unknown for both."""
        known = self.bytes is not None and other.bytes is not None
        return Score(
            nats=self.nats + other.nats,
            tokens=self.tokens + other.tokens,
            bytes=(self.bytes or 0) + (other.bytes or 0) if known else None,
            reason=None if known else self.reason or other.reason,
        )

    def without_bytes(self, reason: str) -> Score:
        """The same score with an unknown number of bytes."""
        return Score(nats=self.nats, tokens=self.tokens, bytes=None, reason=reason)

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood; nan when nothing was scored."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """e to the nats per token."""
        return perplexity(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits to encode one byte of the text with the model; None if the bytes are unknown or there are none."""
        return bits_per_byte(self.nats, self.bytes) if self.bytes else None


def bits_per_byte(nats: float, n_bytes: float) -> float:
    """Nats of a text of `n_bytes` bytes as bits per byte, which do not depend on the tokenizer.

    >>> bits_per_byte(math.log(2) * 8, 4)
    2.0
    """
    if n_bytes < 0:
        raise BadInput(f"a text cannot have {n_bytes:,} bytes; give the number of bytes of the scored text")
    return nats / NATS_PER_BIT / n_bytes if n_bytes else math.nan


def perplexity(nats: float, n_tokens: int) -> float:
    """e to the nats per token; infinite where it exceeds the largest float.

    >>> round(perplexity(math.log(50) * 3, 3), 9)
    50.0
    """
    if not n_tokens:
        return math.nan
    try:
        return math.exp(nats / n_tokens)
    except OverflowError:
        return math.inf


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """chrF: F-score of character n-grams shared with references, from 0 to 100. Popović 2015, by sacrebleu."""
    return float(sacrebleu().corpus_chrf(*_aligned(texts, references)).score)


def bleu(texts: Sequence[str], references: Sequence[str], tokenizer: str | None = "13a") -> float:
    """BLEU: precision of word n-grams shared with references, from 0 to 100. Papineni et al. 2002, by sacrebleu.

    `tokenizer` is one of sacrebleu's; None for text whose words are separated already.
    """
    texts, reference_lists = _aligned(texts, references)
    return float(sacrebleu().corpus_bleu(texts, reference_lists, tokenize=tokenizer or "none", force=True).score)


def _aligned(texts: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    if len(texts) != len(references) or not texts:
        raise BadInput(
            f"{len(texts):,} texts cannot be compared with {len(references):,} references; give one reference per text"
        )
    return list(texts), [list(references)]


def sacrebleu() -> Any:
    """The module. Raises MissingExtra if it is not installed."""
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
    """The difference in bits per byte between two models on the same units of text.

    Args:
        bits: the first model's minus the second's.
        low: lower end of the confidence interval.
        high: upper end of the confidence interval.
        better: share of the resamples in which the first model needs fewer bits.
    """

    bits: float
    low: float
    high: float
    better: float


def bootstrap_interval(
    nats: Floats, sizes: Floats, *, confidence: float = CONFIDENCE, samples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Confidence interval of bits per byte over texts of the same kind: percentile bootstrap (Efron 1979) over units.

    A unit is a document or a run of text, with `nats` (U,) and `sizes` (U,) in bytes. Units are resampled with
    replacement; nats and bytes are summed before they are divided. None for fewer than two units.

    >>> low, high = bootstrap_interval(np.full(9, math.log(2)), np.full(9, 2.0))
    >>> round(low, 9), round(high, 9)
    (0.5, 0.5)
    """
    if len(sizes) < 2:
        return None
    counts = resample_counts(len(sizes), samples, seed)
    bits = (counts @ nats) / (counts @ sizes) / NATS_PER_BIT
    return percentile_interval(bits, confidence)


def paired_bootstrap(
    first: Floats,
    second: Floats,
    sizes: Floats,
    *,
    confidence: float = CONFIDENCE,
    samples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference | None:
    """The difference between two models, both on the same resampled units (Koehn 2004).

    What makes a text hard for both models cancels out: two models whose own intervals overlap can still differ in
    nearly every resample. `first` and `second` (U,) are nats of the same units of `sizes` (U,) bytes. None for fewer
    than two units.
    """
    if len(sizes) < 2:
        return None
    counts = resample_counts(len(sizes), samples, seed)
    bits = (counts @ (first - second)) / (counts @ sizes) / NATS_PER_BIT
    low, high = percentile_interval(bits, confidence)
    return PairedDifference(
        bits_per_byte(float((first - second).sum()), float(sizes.sum())), low, high, float((bits < 0).mean())
    )


def resample_counts(units: int, samples: int, seed: int) -> Floats:
    """How often each resample holds each unit, (S, U): as many units as there are, with replacement."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=samples).astype(np.float64)


def percentile_interval(values: Floats, confidence: float) -> tuple[float, float]:
    """The central interval that holds a share of `confidence` of the values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
