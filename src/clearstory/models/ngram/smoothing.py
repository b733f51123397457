"""Smoothing: from counts to probabilities, and what each context leaves to shorter ones.

Every method ends in the same two numbers, as in a file of ARPA: log P(w | h) for each n-gram hw, and a weight b(h) for
each context h, with P(w | h) = b(h) · P(w | h without its first token) for every w not seen after h. Shortest of all is
the uniform distribution, so no token has probability 0 (but under "none").

R n-grams of one order, C contexts: those of the order before. All arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadSetting
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.counting import CountTable, Whole, Wide

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts are too few to estimate them; those that KenLM falls back to when it may."""

GOOD_TURING = 5
"""Katz 1987: counts above it are taken as they are."""


@dataclass(frozen=True, eq=False)
class SmoothedOrder:
    """The finished table of one order: R rows by rising key.

    Args:
        keys: (R,) as in Table; None for order 1, whose rows are the tokens.
        logs: (R,) log P of the last token after those before.
        weights: (R,) each n-gram's b as a context; None for the longest.
        counts: (R,) how often each stood in the text, where that is known.
    """

    keys: Wide | None
    logs: Floats
    weights: Floats | None
    counts: Whole | None = None


@dataclass(frozen=True, eq=False)
class OrderSmoothing:
    """A table seen from its smoothing.

    Args:
        counts: (R,) how often each n-gram stands in the text.
        adjusted: (R,) what Kneser-Ney counts, see `adjust`.
        contexts: (R,) the row of each n-gram's beginning; zeros for order 1, whose one context is empty.
        endings: (R,) the row of each n-gram without its first token.
        size: C.
        kept: (R,) those that are not pruned.
        order: tokens in each.
        vocab: tokens in all.
    """

    counts: Whole
    adjusted: Whole
    contexts: Whole
    endings: Whole
    size: int
    kept: Flags
    order: int
    vocab: int

    def sums(self, values: Floats) -> Floats:
        """(R,) added up over each context, (C,)."""
        return np.asarray(np.bincount(self.contexts, values, self.size), np.float64)


def estimate(tables: Sequence[CountTable], config: NGramConfig) -> tuple[list[SmoothedOrder], list[str]]:
    """The finished tables, pruned n-grams left out; and what could not be estimated, in sentences.

    Raises BadSetting for a smoothing that is none.
    """
    smooth = smoothing_method(config)
    below = np.full(config.vocab, 1 / config.vocab)
    found: list[tuple[OrderSmoothing, Floats, Floats]] = []
    notes: list[str] = []
    for level in order_smoothings(tables, config):
        shares, below, note = smooth(level, below[level.endings] if level.order > 1 else below)
        notes += [note] if note else []
        with np.errstate(divide="ignore"):  # log 0: what cannot be
            found.append((level, np.log(below), np.log(shares)))
    parts: list[SmoothedOrder] = []
    numbers: Wide = np.arange(config.vocab)
    for at, (table, (level, logs, _)) in enumerate(zip(tables, found, strict=True)):
        stays = level.kept
        keys = numbers[level.contexts[stays]] * config.vocab + table.keys[stays] % config.vocab if at else None
        numbers = np.cumsum(stays) - 1
        weights = found[at + 1][2][stays] if at + 1 < len(found) else None
        parts.append(SmoothedOrder(keys, logs[stays], weights, table.counts[stays]))
    return parts, notes


def order_smoothings(tables: Sequence[CountTable], config: NGramConfig) -> list[OrderSmoothing]:
    """What smoothing needs to know of each table."""
    out = []
    first: Flags = np.arange(config.vocab) == config.bos_token_id
    for order, table in enumerate(tables, start=1):
        contexts = table.keys // config.vocab if order > 1 else np.zeros(len(table), np.int64)
        if order > 1:
            first = first[contexts]  # which n-grams stand at the beginning of a text
        adjusted = table.counts
        if order < len(tables):
            adjusted = continuation_counts(table, tables[order], first if order > 1 else np.zeros_like(first))
        kept = table.counts > config.threshold(order) if order > 1 else np.ones(len(table), dtype=bool)
        size = len(tables[order - 2]) if order > 1 else 1
        out.append(OrderSmoothing(table.counts, adjusted, contexts, table.endings, size, kept, order, config.vocab))
    return out


def continuation_counts(table: CountTable, longer: CountTable, first: Flags) -> Whole:
    """(R,) in how many n-grams one longer each is the end: how many tokens it follows (Kneser and Ney 1995, eq. 7).

    What stands at the beginning of a text follows none, and keeps its plain count (Heafield et al. 2013, section 3.2).
    """
    follows = np.bincount(longer.endings, minlength=len(table))
    return np.where(first, table.counts, follows)


def kneser_ney(level: OrderSmoothing, below: Floats) -> tuple[Floats, Floats, str | None]:
    """Modified Kneser-Ney, interpolated: Chen and Goodman 1999, equations 24 to 26. (C,) shares left, (R,) P."""
    c = level.adjusted.astype(np.float64)
    values, note = kneser_ney_discounts(level.adjusted, level.order)
    lost = np.concatenate([[0.0], values])[np.minimum(level.adjusted, 3)]
    return interpolate(level, c, c - lost, below, note)


def kneser_ney_discounts(adjusted: Whole, order: int) -> tuple[Floats, str | None]:
    """The three discounts of an order, for counts of one, two, and three or more: Chen and Goodman 1999, eq. 26."""
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


def witten_bell(level: OrderSmoothing, below: Floats) -> tuple[Floats, Floats, str | None]:
    """Witten and Bell 1991, method C, interpolated as in Chen and Goodman 1999, eq. 15: what is new counts as one."""
    c = level.counts.astype(np.float64)
    return interpolate(level, c + (c > 0), c, below, None)


def unsmoothed(level: OrderSmoothing, below: Floats) -> tuple[Floats, Floats, str | None]:
    """Maximum likelihood in the longest context that was seen: c(hw) / c(h)."""
    c = np.where(level.kept, level.counts, 0.0)
    return interpolate(level, c, c, below, None)


def laplace(level: OrderSmoothing, below: Floats) -> tuple[Floats, Floats, str | None]:
    """One added to every count, in the longest context that was seen: (c(hw) + 1) / (c(h) + V).

    The weight of a context is here the probability itself of what was not seen after it.
    """
    c = np.where(level.kept, level.counts, 0.0)
    totals = level.sums(c)
    shares = np.where(totals > 0, 1 / (totals + level.vocab), 1.0)
    return shares, np.where(level.kept, (c + 1) * shares[level.contexts], shares[level.contexts]), None


def interpolate(
    level: OrderSmoothing, weighed: Floats, gained: Floats, below: Floats, note: str | None
) -> tuple[Floats, Floats, str | None]:
    """P(w | h) = gained / Σ weighed + share(h) · P below; the share is what was weighed and not gained."""
    gained = np.where(level.kept, gained, 0.0)
    totals = level.sums(weighed)
    empty = totals == 0  # nothing follows: all is left to the shorter context
    totals[empty] = 1.0
    shares = level.sums(weighed - gained) / totals
    shares[empty] = 1.0
    return shares, gained / totals[level.contexts] + shares[level.contexts] * below, note


def katz(level: OrderSmoothing, below: Floats) -> tuple[Floats, Floats, str | None]:
    """Katz 1987: small counts reduced by Good-Turing; what they lose goes to what was not seen, by the shorter context.

    A context all of whose counts are large loses nothing, and would leave nothing: there one is added to the total, as
    SRILM does. One that everything has followed has nothing to leave it to: its probabilities are scaled to add up.
    """
    ratios, note = good_turing(level.counts, level.order)
    c = level.counts.astype(np.float64)
    seen = level.kept & (level.counts > 0)
    gained = np.where(seen, c * ratios[np.minimum(level.counts, GOOD_TURING + 1)], 0.0)
    totals, sums = level.sums(c), level.sums(gained)
    totals = np.where((sums >= totals * (1 - 1e-12)) & (totals > 0), totals + 1, np.maximum(totals, 1.0))
    unseen = 1 - level.sums(np.where(seen, below, 0.0))
    full = unseen < 1e-12
    totals = np.where(full & (sums > 0), sums, totals)
    left = 1 - sums / totals
    shares = np.where(full, 1.0, left / np.where(full, 1.0, unseen))
    return shares, np.where(seen, gained / totals[level.contexts], shares[level.contexts] * below), note


def good_turing(counts: Whole, order: int) -> tuple[Floats, str | None]:
    """What is left of a count, by count up to GOOD_TURING, as a ratio: Katz 1987, eq. 11."""
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


Method = Callable[[OrderSmoothing, Floats], tuple[Floats, Floats, str | None]]

METHODS: dict[str, Method] = {
    "kneser-ney": kneser_ney,
    "witten-bell": witten_bell,
    "katz": katz,
    "laplace": laplace,
    "none": unsmoothed,
}


def smoothing_method(config: NGramConfig) -> Method:
    """How a level is smoothed. Raises BadSetting where the config names no way to learn."""
    if config.smoothing not in METHODS:
        raise BadSetting(
            f"model.smoothing is '{config.smoothing}', which is how probabilities from elsewhere are called; to learn, "
            f"choose one of {', '.join(METHODS)}"
        )
    return METHODS[config.smoothing]
