"""Logit summary: the largest logits of a distribution and a histogram of the others, from which its probabilities and
its entropy follow at any temperature, within a bound that is computed with them.

A bin of n logits with mean m stands for n · exp(m / τ). With bins of width w the true sum is between that (Jensen) and
exp(w² / 8τ²) times that (Hoeffding 1963, lemma 1); the mean logit in a bin, weighted by exp(x / τ), is between m and
m + w² / 4τ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadInput, BadSetting

BIN_WIDTH, MAX_BINS = 0.125, 512
"""Width of a bin in nats, doubled until the logits fit into `MAX_BINS`."""


@dataclass(frozen=True)
class LogitSummary:
    """The K largest of V logits, largest first, and a histogram of the others.

    Args:
        ids: (K,) the tokens.
        logits: (K,) their logits.
        start: the lower edge of the first bin.
        width: the width of a bin.
        counts: (B,) the number of the other logits in each bin.
        means: (B,) the mean of the logits in each bin, its centre where there are none.
        impossible: the number of tokens with the logit −∞.
    """

    ids: Int[Tensor, "K"]
    logits: Float[Tensor, "K"]
    start: float
    width: float
    counts: Int[Tensor, "B"]
    means: Float[Tensor, "B"]
    impossible: int


@dataclass(frozen=True)
class TemperatureDistribution:
    """Probabilities of the K likeliest tokens at a temperature, and the entropy in bits.

    The true probabilities are at most the given ones, and at least those divided by 1 + `relative_error`; the true
    entropy differs by at most `entropy_error` bits.
    """

    probabilities: Float[Tensor, "K"]
    entropy: float
    relative_error: float
    entropy_error: float


def summarise_logits(logits: Float[Tensor, "V"], top: int = 120) -> LogitSummary:
    """The `top` largest of some logits, and a histogram of the others.

    Raises BadSetting for `top` below 1, BadInput for logits without a distribution: NaN, ∞, or −∞ for all tokens.

    >>> summary = summarise_logits(torch.tensor([0.0, 2.0, 1.0, -1.0, -torch.inf]), top=2)
    >>> summary.ids.tolist(), summary.counts.sum().item(), summary.impossible
    ([1, 2], 2, 1)
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    logits = logits.detach().double().cpu()
    if not bool((largest := logits.max()).isfinite()):
        raise BadInput(
            f"the largest logit is {float(largest)}, so the model predicts no token; open another checkpoint"
        )
    order = logits.argsort(descending=True, stable=True)
    possible = int((logits > -torch.inf).sum())
    ids, rest = order[: min(top, possible)], logits[order[top:possible]]
    if not len(rest):
        empty = torch.zeros(0, dtype=torch.float64)
        return LogitSummary(ids, logits[ids], 0.0, BIN_WIDTH, empty.long(), empty, len(logits) - possible)
    width = BIN_WIDTH
    while (start := math.floor(float(rest[-1]) / width) * width) + MAX_BINS * width <= float(rest[0]):
        width *= 2
    index = ((rest - start) / width).floor().long()
    count = int(index.max()) + 1
    counts = torch.bincount(index, minlength=count)
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, index, rest)
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * width
    means = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return LogitSummary(ids, logits[ids], start, width, counts, means, len(logits) - possible)


def distribution_at(summary: LogitSummary, temperature: float) -> TemperatureDistribution:
    """Probabilities and entropy at a temperature, with their bounds. Raises BadSetting for one that is not positive.

    >>> logits = torch.linspace(-3, 3, 50)
    >>> seen = distribution_at(summarise_logits(logits, top=5), 1.0)
    >>> exact = logits.double().softmax(-1).flip(0)[:5]
    >>> bool(((seen.probabilities / exact - 1).abs() <= seen.relative_error + 1e-12).all())
    True
    """
    if not temperature > 0 or math.isinf(temperature):
        raise BadSetting(f"temperature is {temperature}; it must be positive and finite")
    largest = summary.logits[0]
    x, rest = (summary.logits - largest) / temperature, (summary.means - largest) / temperature
    weights, rest_weights = x.exp(), summary.counts * rest.exp()
    total, rest_total = float(weights.sum() + rest_weights.sum()), float(rest_weights.sum())
    energy, rest_energy = float((weights * x).sum()), float((rest_weights * rest).sum())
    share, spread = rest_total / total, (summary.width / temperature) ** 2
    excess = math.expm1(min(spread / 8, 700.0))
    nats = math.log(total) - (energy + rest_energy) / total
    # Between these the sums over the bins lie; a bin's energy is negative, as all logits are below the largest.
    highest = math.log(total * (1 + share * excess)) - (energy + rest_energy * (1 + excess)) / total
    lowest = math.log(total) - (energy + min(0.0, rest_energy + rest_total * spread / 4)) / (
        total * (1 + share * excess)
    )
    error = max(highest - nats, nats - lowest, 0.0)
    return TemperatureDistribution(weights / total, nats / math.log(2), share * excess, error / math.log(2))


def summary_arrays(logits: Float[Tensor, "V"]) -> dict[str, object]:
    """A summary as the arrays of a walkthrough: `next.ids`, `next.logits`, `next.counts`, `next.means`, and `next`."""
    summary = summarise_logits(logits)
    return {
        "next.ids": summary.ids,
        "next.logits": summary.logits,
        "next.counts": summary.counts,
        "next.means": summary.means,
        "next": {
            "start": summary.start,
            "width": summary.width,
            "impossible": summary.impossible,
            "vocab": len(logits),
            "entropy": distribution_at(summary, 1.0).entropy,
        },
    }
