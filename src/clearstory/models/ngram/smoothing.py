"""Smoothing: from n-gram counts to probabilities and backoff log_backoffs.

Every method produces the two new_rows of an ARPA file: log P(w | h) for each n-gram hw, and a backoff weight b(h) for
each context h, with P(w | h) = b(h) · P(w | h without its first token) for every w not seen after h. Below order 1 is
the uniform distribution, so no token has probability 0 (except under "none").

R n-grams of one order, C contexts: the n-grams of the next shorter order. All computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadSetting
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.counting import CountTable, Int64s, Ints

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts are too few to estimate them; KenLM's fallback values."""

GOOD_TURING = 5
"""Katz 1987: counts above this are not discounted."""


@dataclass(frozen=True, eq=False)
class SmoothedOrder:
    """The smoothed n-grams of one order; R rows by rising key.

    Args:
        keys: (R,) as in CountTable; None for order 1, whose rows are the tokens.
        log_probs: (R,) log P of the last token given those before.
        log_backoffs: (R,) log backoff weight of each n-gram as a context; None for the longest order.
        counts: (R,) occurrences in the text, where known.
    """

    keys: Int64s | None
    log_probs: Floats
    log_backoffs: Floats | None
    counts: Ints | None = None


@dataclass(frozen=True, eq=False)
class OrderCounts:
    """The counts of one order and what smoothing them needs.

    Args:
        counts: (R,) occurrences of each n-gram in the text.
        adjusted: (R,) Kneser-Ney's counts, see `continuation_counts`.
        contexts: (R,) row of each n-gram's beginning; zeros for order 1, whose one context is empty.
        suffixes: (R,) row of each n-gram without its first token.
        size: C, the number of contexts.
        kept: (R,) whether the n-gram is not pruned.
        order: tokens in each n-gram.
        vocab: tokens in the vocabulary.
    """

    counts: Ints
    adjusted: Ints
    contexts: Ints
    suffixes: Ints
    size: int
    kept: Flags
    order: int
    vocab: int

    def sums(self, values: Floats) -> Floats:
        """Sum of (R,) values over the n-grams of each context, (C,)."""
        return np.asarray(np.bincount(self.contexts, values, self.size), np.float64)


def estimate(tables: Sequence[CountTable], config: NGramConfig) -> tuple[list[SmoothedOrder], list[str]]:
    """The smoothed orders without pruned n-grams, and one sentence for each discount that could not be estimated.

    Raises BadSetting for a smoothing that cannot be fitted.
    """
    smooth = smoothing_method(config)
    shorter_probs = np.full(config.vocab, 1 / config.vocab)
    estimates: list[tuple[OrderCounts, Floats, Floats]] = []
    notes: list[str] = []
    for order_counts in collect_order_counts(tables, config):
        backoffs, shorter_probs, note = smooth(
            order_counts, shorter_probs[order_counts.suffixes] if order_counts.order > 1 else shorter_probs
        )
        notes += [note] if note else []
        with np.errstate(divide="ignore"):  # log 0: what cannot be
            estimates.append((order_counts, np.log(shorter_probs), np.log(backoffs)))
    smoothed: list[SmoothedOrder] = []
    new_rows: Int64s = np.arange(config.vocab)
    for at, (table, (order_counts, log_probs, _)) in enumerate(zip(tables, estimates, strict=True)):
        kept = order_counts.kept
        keys = new_rows[order_counts.contexts[kept]] * config.vocab + table.keys[kept] % config.vocab if at else None
        new_rows = np.cumsum(kept) - 1
        log_backoffs = estimates[at + 1][2][kept] if at + 1 < len(estimates) else None
        smoothed.append(SmoothedOrder(keys, log_probs[kept], log_backoffs, table.counts[kept]))
    return smoothed, notes


def collect_order_counts(tables: Sequence[CountTable], config: NGramConfig) -> list[OrderCounts]:
    """The counts of each order with what smoothing needs."""
    out = []
    first: Flags = np.arange(config.vocab) == config.bos_token_id
    for order, table in enumerate(tables, start=1):
        contexts = table.keys // config.vocab if order > 1 else np.zeros(len(table), np.int64)
        if order > 1:
            first = first[contexts]  # whether the n-gram starts a text
        adjusted = table.counts
        if order < len(tables):
            adjusted = continuation_counts(table, tables[order], first if order > 1 else np.zeros_like(first))
        kept = table.counts > config.threshold(order) if order > 1 else np.ones(len(table), dtype=bool)
        size = len(tables[order - 2]) if order > 1 else 1
        out.append(OrderCounts(table.counts, adjusted, contexts, table.suffixes, size, kept, order, config.vocab))
    return out


def continuation_counts(table: CountTable, longer: CountTable, first: Flags) -> Ints:
    """Number of distinct tokens that precede each n-gram, (R,) (Kneser and Ney 1995, eq. 7).

    An n-gram that starts a text is preceded by none and keeps its plain count (Heafield et al. 2013, section 3.2).
    """
    follows = np.bincount(longer.suffixes, minlength=len(table))
    return np.where(first, table.counts, follows)


def kneser_ney(order_counts: OrderCounts, shorter_probs: Floats) -> tuple[Floats, Floats, str | None]:
    """Interpolated modified Kneser-Ney: Chen and Goodman 1999, equations 24 to 26. Returns b (C,) and P (R,)."""
    c = order_counts.adjusted.astype(np.float64)
    values, note = kneser_ney_discounts(order_counts.adjusted, order_counts.order)
    lost = np.concatenate([[0.0], values])[np.minimum(order_counts.adjusted, 3)]
    return interpolate(order_counts, c, c - lost, shorter_probs, note)


def kneser_ney_discounts(adjusted: Ints, order: int) -> tuple[Floats, str | None]:
    """Discounts of an order for counts 0, 1, 2 and 3 or more, (3,) without the zero: Chen and Goodman 1999, eq. 26."""
    n = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(np.float64)
    if n[1:5].all():
        y = n[1] / (n[1] + 2 * n[2])
        found = np.array([k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)])
        if (found >= 0).all() and (found <= (1, 2, 3)).all():
            return found, None
    once, twice, thrice, four = map(int, n[1:5])
    return np.array(FALLBACK), (
        f"the discounts of order {order} cannot be estimated where {once:,}, {twice:,}, {thrice:,} and {four:,} of its "
        "n-grams are counted once to four times, so 0.5, 1 and 1.5 are taken"
    )


def witten_bell(order_counts: OrderCounts, shorter_probs: Floats) -> tuple[Floats, Floats, str | None]:
    """Interpolated Witten-Bell (1991), method C, as in Chen and Goodman 1999, eq. 15."""
    c = order_counts.counts.astype(np.float64)
    return interpolate(order_counts, c + (c > 0), c, shorter_probs, None)


def unsmoothed(order_counts: OrderCounts, shorter_probs: Floats) -> tuple[Floats, Floats, str | None]:
    """Maximum likelihood in the longest seen context: c(hw) / c(h)."""
    c = np.where(order_counts.kept, order_counts.counts, 0.0)
    return interpolate(order_counts, c, c, shorter_probs, None)


def laplace(order_counts: OrderCounts, shorter_probs: Floats) -> tuple[Floats, Floats, str | None]:
    """Add-one smoothing in the longest seen context: (c(hw) + 1) / (c(h) + V).

    Here the backoff weight of a context is the probability itself of each token unseen after it.
    """
    c = np.where(order_counts.kept, order_counts.counts, 0.0)
    totals = order_counts.sums(c)
    backoffs = np.where(totals > 0, 1 / (totals + order_counts.vocab), 1.0)
    return (
        backoffs,
        np.where(order_counts.kept, (c + 1) * backoffs[order_counts.contexts], backoffs[order_counts.contexts]),
        None,
    )


def interpolate(
    order_counts: OrderCounts, counted: Floats, discounted: Floats, shorter_probs: Floats, note: str | None
) -> tuple[Floats, Floats, str | None]:
    """P(w | h) = discounted / Σ counted + b(h) · P of the shorter context; b(h) is the share taken away."""
    discounted = np.where(order_counts.kept, discounted, 0.0)
    totals = order_counts.sums(counted)
    empty = totals == 0  # no token follows: all mass goes to the shorter context
    totals[empty] = 1.0
    backoffs = order_counts.sums(counted - discounted) / totals
    backoffs[empty] = 1.0
    return backoffs, discounted / totals[order_counts.contexts] + backoffs[order_counts.contexts] * shorter_probs, note


def katz(order_counts: OrderCounts, shorter_probs: Floats) -> tuple[Floats, Floats, str | None]:
    """Katz 1987: small counts are discounted by Good-Turing; the freed mass goes to unseen tokens by backoff.

    Where all counts of a context are large, nothing is discounted; then one is added to the total, as SRILM does. Where
    every token has followed a context, its probabilities are scaled to sum to one.
    """
    ratios, note = good_turing(order_counts.counts, order_counts.order)
    c = order_counts.counts.astype(np.float64)
    seen = order_counts.kept & (order_counts.counts > 0)
    discounted = np.where(seen, c * ratios[np.minimum(order_counts.counts, GOOD_TURING + 1)], 0.0)
    totals, sums = order_counts.sums(c), order_counts.sums(discounted)
    totals = np.where((sums >= totals * (1 - 1e-12)) & (totals > 0), totals + 1, np.maximum(totals, 1.0))
    unseen = 1 - order_counts.sums(np.where(seen, shorter_probs, 0.0))
    full = unseen < 1e-12
    totals = np.where(full & (sums > 0), sums, totals)
    left = 1 - sums / totals
    backoffs = np.where(full, 1.0, left / np.where(full, 1.0, unseen))
    return (
        backoffs,
        np.where(seen, discounted / totals[order_counts.contexts], backoffs[order_counts.contexts] * shorter_probs),
        note,
    )


def good_turing(counts: Ints, order: int) -> tuple[Floats, str | None]:
    """Ratio of discounted to plain count, by count up to GOOD_TURING and above: Katz 1987, eq. 11."""
    k = GOOD_TURING
    n = np.bincount(np.minimum(counts, k + 2), minlength=k + 3).astype(np.float64)
    r = np.arange(1, k + 1)
    if n[1 : k + 2].all():
        common = (k + 1) * n[k + 1] / n[1]
        ratios = ((r + 1) * n[2 : k + 2] / (r * n[1 : k + 1]) - common) / (1 - common)
        if common < 1 and (ratios > 0).all() and (ratios <= 1).all():
            return np.concatenate([[0.0], ratios, [1.0]]), None
    return np.concatenate([[0.0], (r - 0.5) / r, [1.0]]), (
        f"the Good-Turing discounts of order {order} cannot be estimated from its counts, so counts "
        f"up to {k} lose a half each"
    )


SmoothingMethod = Callable[[OrderCounts, Floats], tuple[Floats, Floats, str | None]]

SMOOTHING_METHODS: dict[str, SmoothingMethod] = {
    "kneser-ney": kneser_ney,
    "witten-bell": witten_bell,
    "katz": katz,
    "laplace": laplace,
    "none": unsmoothed,
}


def smoothing_method(config: NGramConfig) -> SmoothingMethod:
    """The smoothing function of a config. Raises BadSetting for "given", which cannot be fitted."""
    if config.smoothing not in SMOOTHING_METHODS:
        raise BadSetting(
            f"model.smoothing is '{config.smoothing}', which stands for probabilities read from a file; to fit a "
            f"model, choose one of {', '.join(SMOOTHING_METHODS)}"
        )
    return SMOOTHING_METHODS[config.smoothing]
