"""Smoothing: from the counts of n-grams to probabilities and backoff weights.

Every method gives the two numbers of an ARPA file: P(w | h) for each n-gram hw, and a backoff weight b(h) for each
context h, with P(w | h) = b(h) · P(w | h without its first token) for every w not seen after h. Below order 1 is the
uniform distribution, so no token has probability 0 (except under "none").

A method first looks at how often each count occurs among all n-grams of an order, which gives its discounts; then it
smooths one context after another. R n-grams of C adjacent contexts; all computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadSetting
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.sorted_runs import Int64s, Ints

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts are too few to estimate them; KenLM's fallback values."""

GOOD_TURING = 5
"""Counts above this are not discounted (Katz 1987)."""


@dataclass(frozen=True, eq=False)
class ContextCounts:
    """The n-grams of some adjacent contexts.

    Args:
        counts: (R,) occurrences of each n-gram in the text.
        adjusted: (R,) Kneser-Ney's counts, see `continuation_counts`.
        contexts: (R,) number of each n-gram's context among these.
        size: C, the number of contexts.
        kept: (R,) whether the n-gram is not pruned.
        vocab: tokens in the vocabulary.
    """

    counts: Ints
    adjusted: Ints
    contexts: Int64s
    size: int
    kept: Flags
    vocab: int

    def sums(self, values: Floats) -> Floats:
        """Sum of (R,) values over the n-grams of each context, (C,)."""
        return np.asarray(np.bincount(self.contexts, values, self.size), np.float64)


Smoothed = tuple[Floats, Floats]
"""Backoff weights b, (C,), and probabilities P, (R,)."""

Smoother = Callable[[ContextCounts, Floats], Smoothed]
"""Smooths the n-grams of some contexts, given the probability of each one's last token in the shorter context, (R,)."""


def counts_of_counts(counts: Ints) -> Int64s:
    """Number of n-grams with each count from 0 to GOOD_TURING + 1, and with a larger one."""
    most = GOOD_TURING + 2
    found = np.zeros(most + 1, np.int64)
    for start in range(0, len(counts), 2**17):
        found += np.bincount(np.minimum(counts[start : start + 2**17], most), minlength=most + 1)
    return found


def kneser_ney(order: int, counts: Ints, adjusted: Ints) -> tuple[Smoother, str | None]:
    """Interpolated modified Kneser-Ney: Chen and Goodman 1999, equations 24 to 26."""
    discounts, note = kneser_ney_discounts(counts_of_counts(adjusted), order)
    lost = np.concatenate([[0.0], discounts])

    def smooth(block: ContextCounts, shorter_probs: Floats) -> Smoothed:
        c = block.adjusted.astype(np.float64)
        return interpolate(block, c, c - lost[np.minimum(block.adjusted, 3)], shorter_probs)

    return smooth, note


def kneser_ney_discounts(n: Int64s, order: int) -> tuple[Floats, str | None]:
    """Discounts for counts 1, 2 and 3 or more, (3,), from the counts of counts: Chen and Goodman 1999, eq. 26."""
    if n[1:5].all():
        y = n[1] / (n[1] + 2 * n[2])
        found = np.array([k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)])
        if (found >= 0).all() and (found <= (1, 2, 3)).all():
            return found, None
    once, twice, thrice, four = map(int, n[1:5])
    return np.array(FALLBACK), (
        f"the discounts of order {order} cannot be estimated from {once:,}, {twice:,}, {thrice:,} and {four:,} "
        "n-grams with counts of one to four, so 0.5, 1 and 1.5 are used"
    )


def witten_bell(block: ContextCounts, shorter_probs: Floats) -> Smoothed:
    """Interpolated Witten-Bell (1991), method C, as in Chen and Goodman 1999, eq. 15."""
    c = block.counts.astype(np.float64)
    return interpolate(block, c + (c > 0), c, shorter_probs)


def unsmoothed(block: ContextCounts, shorter_probs: Floats) -> Smoothed:
    """Maximum likelihood in the longest seen context: c(hw) / c(h)."""
    c = np.where(block.kept, block.counts, 0.0)
    return interpolate(block, c, c, shorter_probs)


def laplace(block: ContextCounts, shorter_probs: Floats) -> Smoothed:
    """Add-one smoothing in the longest seen context: (c(hw) + 1) / (c(h) + V).

    Here the backoff weight of a context is the probability itself of each token unseen after it.
    """
    c = np.where(block.kept, block.counts, 0.0)
    totals = block.sums(c)
    backoffs = np.where(totals > 0, 1 / (totals + block.vocab), 1.0)
    unseen = backoffs[block.contexts]
    return backoffs, np.where(block.kept, (c + 1) * unseen, unseen)


def interpolate(block: ContextCounts, counted: Floats, discounted: Floats, shorter_probs: Floats) -> Smoothed:
    """P(w | h) = discounted / Σ counted + b(h) · P of the shorter context; b(h) is the share taken away."""
    discounted = discounted if block.kept.all() else np.where(block.kept, discounted, 0.0)
    totals = block.sums(counted)
    empty = totals == 0  # no token follows: all mass goes to the shorter context
    totals[empty] = 1.0
    backoffs = block.sums(counted - discounted) / totals
    backoffs[empty] = 1.0
    return backoffs, discounted / totals[block.contexts] + backoffs[block.contexts] * shorter_probs


def katz(order: int, counts: Ints, adjusted: Ints) -> tuple[Smoother, str | None]:
    """Katz 1987: small counts are discounted by Good-Turing; the freed mass goes to unseen tokens by backoff."""
    ratios, note = good_turing(counts_of_counts(counts), order)
    return partial(katz_backoff, ratios), note


def katz_backoff(ratios: Floats, block: ContextCounts, shorter_probs: Floats) -> Smoothed:
    """Katz's probabilities, given the ratio of discounted to plain count for each count.

    Where all counts of a context are large, nothing is discounted; then one is added to the total, as SRILM does. Where
    every token has followed a context, its probabilities are scaled to sum to one.
    """
    c = block.counts.astype(np.float64)
    seen = block.kept & (block.counts > 0)
    discounted = np.where(seen, c * ratios[np.minimum(block.counts, GOOD_TURING + 1)], 0.0)
    totals, sums = block.sums(c), block.sums(discounted)
    totals = np.where((sums >= totals * (1 - 1e-12)) & (totals > 0), totals + 1, np.maximum(totals, 1.0))
    unseen = 1 - block.sums(np.where(seen, shorter_probs, 0.0))
    full = unseen < 1e-12
    totals = np.where(full & (sums > 0), sums, totals)
    left = 1 - sums / totals
    backoffs = np.where(full, 1.0, left / np.where(full, 1.0, unseen))
    shares = discounted / totals[block.contexts]
    return backoffs, np.where(seen, shares, backoffs[block.contexts] * shorter_probs)


def good_turing(n: Int64s, order: int) -> tuple[Floats, str | None]:
    """Ratio of discounted to plain count, by count up to GOOD_TURING and above: Katz 1987, eq. 11."""
    k = GOOD_TURING
    r = np.arange(1, k + 1)
    if n[1 : k + 2].all():
        common = (k + 1) * n[k + 1] / n[1]
        ratios = ((r + 1) * n[2 : k + 2] / (r * n[1 : k + 1]) - common) / (1 - common)
        if common < 1 and (ratios > 0).all() and (ratios <= 1).all():
            return np.concatenate([[0.0], ratios, [1.0]]), None
    return np.concatenate([[0.0], (r - 0.5) / r, [1.0]]), (
        f"the Good-Turing discounts of order {order} cannot be estimated from its counts, so counts up to {k} are "
        "discounted by 0.5"
    )


def without_discounts(smooth: Smoother, order: int, counts: Ints, adjusted: Ints) -> tuple[Smoother, str | None]:
    """A method that does not depend on the counts of counts."""
    return smooth, None


SmoothingMethod = Callable[[int, Ints, Ints], tuple[Smoother, str | None]]
"""Of an order, its counts (R,) and its adjusted counts (R,): the function that smooths its n-grams, and a sentence
where its discounts could not be estimated.
"""

SMOOTHING_METHODS: dict[str, SmoothingMethod] = {
    "kneser-ney": kneser_ney,
    "witten-bell": partial(without_discounts, witten_bell),
    "katz": katz,
    "laplace": partial(without_discounts, laplace),
    "none": partial(without_discounts, unsmoothed),
}


def smoothing_method(config: NGramConfig) -> SmoothingMethod:
    """The smoothing function of a config. Raises BadSetting for "given", which cannot be fitted."""
    if config.smoothing not in SMOOTHING_METHODS:
        raise BadSetting(
            f"model.smoothing is '{config.smoothing}', which stands for probabilities read from a file; to fit a "
            f"model, choose one of {', '.join(SMOOTHING_METHODS)}"
        )
    return SMOOTHING_METHODS[config.smoothing]
