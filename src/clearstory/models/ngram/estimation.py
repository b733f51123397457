"""Estimation: the smoothed tables of all orders from their counts, a block of contexts at a time.

Each method smooths a context from its own n-grams and the shorter probabilities of their last tokens, so the tables are
read once, in order, and no array but the result is as long as a table, besides the probabilities of two orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.smoothing import ContextCounts, Floats, smoothing_method
from clearstory.models.ngram.sorted_runs import CountTable, Int64s, Ints, released, remapped

Logs = npt.NDArray[np.floating[Any]]

BLOCK_ROWS = 2**16
"""Number of n-grams smoothed at a time: their arrays fit in the processor's cache."""


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
    log_probs: Logs
    log_backoffs: Logs | None
    counts: Ints | None = None


def estimate(
    tables: Sequence[CountTable], config: NGramConfig, dtype: type[np.floating[Any]] = np.float64
) -> tuple[list[SmoothedOrder], list[str]]:
    """The smoothed orders without pruned n-grams, and one sentence for each discount that could not be estimated.

    Logarithms are taken in float64 and stored as `dtype`. Raises BadSetting for a smoothing that cannot be fitted.
    """
    method = smoothing_method(config)
    shorter_probs: Floats = np.full(config.vocab, 1 / config.vocab)
    log_probs: list[Logs] = []
    log_backoffs: list[Logs] = []
    notes: list[str] = []
    started = slice(0, 0)  # rows of the n-grams that start a text
    for order, table in enumerate(map(released, tables), start=1):
        is_longest = order == len(tables)
        started = rows_after(table, started, order, config)
        adjusted = table.counts if is_longest else continuation_counts(table, released(tables[order]), started)
        smooth, note = method(order, table.counts, adjusted)
        notes += [note] if note else []
        probs = np.empty(0 if is_longest else len(table))
        log_probs.append(np.empty(len(table), dtype))
        log_backoffs.append(np.empty(len(tables[order - 2]) if order > 1 else 1, dtype))
        for rows, contexts, block in context_blocks(table, adjusted, order, config, len(log_backoffs[-1])):
            backoffs, found = smooth(block, shorter_probs[table.suffixes[rows] if order > 1 else rows])
            with np.errstate(divide="ignore"):  # log 0: what cannot be
                log_backoffs[-1][contexts], log_probs[-1][rows] = np.log(backoffs), np.log(found)
            if not is_longest:
                probs[rows] = found
        shorter_probs = probs
    tables = [released(table) for table in tables]
    return without_pruned(tables, log_probs, [*log_backoffs[1:], None], config), notes


def rows_after(table: CountTable, started: slice, order: int, config: NGramConfig) -> slice:
    """The rows of the n-grams that start a text, given those of the next shorter order: in rising keys, one run."""
    if order == 1 or config.bos_token_id is None:
        return slice(0, 0)
    if order == 2:
        started = slice(config.bos_token_id, config.bos_token_id + 1)
    first, last = np.searchsorted(table.keys, [started.start * config.vocab, started.stop * config.vocab]).tolist()
    return slice(first, last)


def continuation_counts(table: CountTable, longer: CountTable, started: slice) -> Ints:
    """Number of distinct tokens that precede each n-gram, (R,) (Kneser and Ney 1995, eq. 7).

    An n-gram that starts a text is preceded by none and keeps its plain count (Heafield et al. 2013, section 3.2).
    """
    found = np.zeros(len(table), np.int32)
    one = np.int32(1)
    for start in range(0, len(longer), BLOCK_ROWS):
        np.add.at(found, longer.suffixes[start : start + BLOCK_ROWS].astype(np.int64), one)
    found[started] = table.counts[started]
    return found


def context_blocks(
    table: CountTable, adjusted: Ints, order: int, config: NGramConfig, size: int
) -> Iterator[tuple[slice, slice, ContextCounts]]:
    """The n-grams of an order, about BLOCK_ROWS at a time, with all of each context: their rows, contexts and counts.

    `size` is the number of contexts of the order.
    """
    first_row = first_context = 0
    while first_context < size:
        last_row, last_context = len(table), size
        if order > 1 and first_row + BLOCK_ROWS < len(table):
            last_context = int(table.keys[first_row + BLOCK_ROWS - 1]) // config.vocab + 1
            last_row = int(np.searchsorted(table.keys, last_context * config.vocab))
        rows, contexts = slice(first_row, last_row), slice(first_context, last_context)
        counts = table.counts[rows]
        yield (
            rows,
            contexts,
            ContextCounts(
                counts=counts,
                adjusted=adjusted[rows],
                contexts=table.keys[rows] // (config.vocab if order > 1 else len(table)) - first_context,
                size=last_context - first_context,
                kept=counts > config.threshold(order) if order > 1 else np.ones(len(counts), dtype=bool),
                vocab=config.vocab,
            ),
        )
        first_row, first_context = last_row, last_context


def without_pruned(
    tables: Sequence[CountTable], log_probs: Sequence[Logs], log_backoffs: Sequence[Logs | None], config: NGramConfig
) -> list[SmoothedOrder]:
    """The n-grams of all orders that are not pruned, with the rows of their contexts counted among these."""
    smoothed: list[SmoothedOrder] = []
    new_rows: Int64s | None = None  # of the shorter order; None where none is pruned
    for order, (table, logs, backoffs) in enumerate(zip(tables, log_probs, log_backoffs, strict=True), start=1):
        keys, counts = table.keys, table.counts
        kept = counts > config.threshold(order) if order > 1 and config.threshold(order) else None
        if new_rows is not None:
            keys = new_rows[keys // config.vocab] * config.vocab + keys % config.vocab
        new_rows = None
        if kept is not None:
            new_rows = np.cumsum(kept) - 1
            keys, counts, logs = keys[kept], counts[kept], logs[kept]
            backoffs = None if backoffs is None else backoffs[kept]
        smoothed.append(SmoothedOrder(None if order == 1 else remapped(keys), logs, backoffs, counts))
    return smoothed
