"""Counts of every n-gram of a text, in sorted arrays, order by order.

An n-gram has a key: the row of its beginning in the next shorter table, times the vocabulary size, plus its last token.
Rows number the sorted keys, so a table is a trie laid flat, and no key outgrows 64 bits: id · V^(n−1) would at order 5
with 50,000 tokens. A text is counted chunk by chunk. A chunk is sorted in memory; where there are several, the sorted
run of each is kept on disk, and all are merged one key range at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, BadSetting, VocabularyMismatch
from clearstory.models.base import TokenSequences
from clearstory.models.ngram.config import MAX_ROWS

Ints = npt.NDArray[np.integer[Any]]
Int64s = npt.NDArray[np.int64]

CHUNK = 2**22
"""Tokens sorted in memory at once: about 200 MB."""


@dataclass(frozen=True, eq=False)
class CountTable:
    """The counted n-grams of one order; R rows by rising key.

    Args:
        keys: (R,) row of the beginning times V plus the last token. For order 1, the ids.
        counts: (R,) occurrences in the text.
        suffixes: (R,) row of the n-gram without its first token, in the next shorter table. For order 1, zeros.
    """

    keys: Int64s
    counts: Ints
    suffixes: Ints

    def __len__(self) -> int:
        return len(self.keys)


def count_ngrams(
    dataset: TokenSequences, order: int, vocab: int, bos_token_id: int | None = None, chunk: int = CHUNK
) -> Generator[CountTable, None, None]:
    """Yield the tables of orders 1 to `order`. An n-gram lies within one document.

    Where `bos_token_id` is given, it precedes each document, and no n-gram reaches back past its last occurrence: where
    that token ends every line, lines are sentences. Order 1 has a row for every token of the vocabulary.

    Raises, before order 1, VocabularyMismatch for an id outside the vocabulary and BadSetting where no document is as
    long as `order`.

    >>> from types import SimpleNamespace
    >>> dataset = SimpleNamespace(ids=np.array([0, 1, 0, 1]), starts=np.array([0, 4]), byte_lengths=None)
    >>> [(table.keys.tolist(), table.counts.tolist()) for table in count_ngrams(dataset, 2, vocab=2)]
    [([0, 1], [2, 2]), ([1, 2], [2, 1])]
    """
    with tempfile.TemporaryDirectory(prefix="clearstory-counts-") as folder:
        text = TextCounter(dataset, order, vocab, bos_token_id, chunk, Path(folder))
        yield text.count_tokens()
        for length in range(2, order + 1):
            yield text.count_order(length)


class TextCounter:
    """Counts the n-grams of N tokens; arrays of N elements are on disk where the text is longer than a chunk."""

    def __init__(
        self, dataset: TokenSequences, order: int, vocab: int, bos_token_id: int | None, chunk: int, folder: Path
    ) -> None:
        self.ids: Ints = np.asanyarray(dataset.ids)
        self.starts = np.asarray(dataset.starts, dtype=np.int64)
        self.vocab, self.bos_token_id, self.folder, self.chunk = vocab, bos_token_id, folder, chunk
        if len(self.ids) > MAX_ROWS:
            raise BadInput(f"the text has {len(self.ids):,} tokens, and {MAX_ROWS:,} can be counted; give a part of it")
        self.files = 0
        self.history: npt.NDArray[np.uint8] = self.array(np.uint8)
        longest = self.measure_history(order)
        if longest < order - 1:
            raise BadSetting(
                f"model.order is {order}, and no more than {longest + 1} tokens are adjacent anywhere in "
                f"this text; set model.order to {longest + 1} or less"
            )
        self.rows: Ints = self.ids  # row of the n-gram that ends at each position, of the last order counted

    def chunks(self) -> Iterator[slice]:
        """Slices of the text, one chunk each."""
        for start in range(0, len(self.ids), self.chunk):
            yield slice(start, min(start + self.chunk, len(self.ids)))

    def array(self, kind: type[np.generic]) -> Any:
        """An array with one element for each token, in memory or on disk."""
        if len(self.ids) <= self.chunk:
            return np.zeros(len(self.ids), kind)
        self.files += 1
        return np.memmap(self.folder / f"{self.files}.numbers", kind, "w+", shape=(len(self.ids),))

    def measure_history(self, order: int) -> int:
        """Store how many tokens precede each position in its sentence, up to order − 1. Returns the largest number."""
        first = 0 if self.bos_token_id is None else 1  # the start token before a document's first token
        last, most = 0, 0  # where the current sentence started
        for part in self.chunks():
            resets = np.zeros(part.stop - part.start + 1, dtype=bool)
            inside = self.starts[(self.starts >= part.start) & (self.starts < part.stop)]
            resets[inside - part.start] = True
            if self.bos_token_id is not None:
                resets[1:] |= self.ids[part] == self.bos_token_id
                if part.start and self.ids[part.start - 1] == self.bos_token_id:
                    resets[0] = True
            positions = np.arange(part.start, part.stop)
            began = np.maximum.accumulate(np.where(resets[:-1], positions, last))
            before = positions - began + first
            most = max(most, int(before.max(initial=0)))
            self.history[part] = np.minimum(before, order - 1)
            last = int(began[-1])
        return most

    def count_tokens(self) -> CountTable:
        """The table of order 1."""
        counts = np.zeros(self.vocab, np.int64)
        for part in self.chunks():
            ids = self.ids[part]
            if len(ids) and int(ids.max()) >= self.vocab:
                raise VocabularyMismatch(
                    f"the text holds token id {int(ids.max()):,}, and the model knows {self.vocab:,}; "
                    "build it for the tokenizer that made the text"
                )
            counts += np.bincount(ids, minlength=self.vocab)
        return CountTable(np.arange(self.vocab), counts, np.zeros(self.vocab, np.int32))

    def count_order(self, order: int) -> CountTable:
        """The table of this order; the next shorter one must have been counted just before."""
        numbers: Ints = self.array(np.int32)
        runs: list[SortedRun] = []
        for part in self.chunks():
            positions = part.start + np.flatnonzero(self.history[part] >= order - 1)
            keys = self.prefix_rows(positions, order).astype(np.int64)
            keys *= self.vocab
            keys += self.ids[positions]
            run, order_of = group_keys(keys, self.rows, positions)
            numbers[positions] = order_of
            runs.append(run if len(self.ids) <= self.chunk else run.save(self.folder, len(runs)))
        table = merge_runs(runs, self.chunk)
        if len(runs) > 1:
            for part, run in zip(self.chunks(), runs, strict=True):
                positions = part.start + np.flatnonzero(self.history[part] >= order - 1)
                numbers[positions] = np.searchsorted(table.keys, run.keys)[numbers[positions]]
        self.rows = numbers
        return table

    def prefix_rows(self, positions: Int64s, order: int) -> Ints:
        """Row of the next shorter n-gram that ends just before each of these positions."""
        before = self.rows[np.maximum(positions - 1, 0)]
        if order == 2 and self.bos_token_id is not None:
            firsts = np.isin(positions, self.starts) if len(self.starts) > 2 else positions == 0
            before = np.where(firsts, self.bos_token_id, before)
        return before


@dataclass(frozen=True, eq=False)
class SortedRun:
    """The counted n-grams of one chunk: rising keys, their counts and suffixes."""

    keys: Int64s
    counts: Ints
    suffixes: Ints

    def save(self, folder: Path, number: int) -> SortedRun:
        """The same run with its arrays on disk."""
        return SortedRun(*(write_memmap(folder / f"run-{number}.{name}", getattr(self, name)) for name in ARRAYS))


ARRAYS = ("keys", "counts", "suffixes")


def write_memmap(file: Path, values: Any) -> Any:
    """The same array as a memory map of a new file."""
    if not len(values):  # an empty file cannot be mapped
        return values
    mapped = np.memmap(file, values.dtype, "w+", shape=values.shape)
    mapped[:] = values
    return mapped


def group_keys(keys: Int64s, numbers: Ints, positions: Int64s) -> tuple[SortedRun, Ints]:
    """The distinct keys as a run, and for each key in its original order, its index among them."""
    size = len(keys)
    bits = size.bit_length()
    if size and int(keys.max()).bit_length() + bits < 63:
        # Key and index in one number: sorting values is five times as fast as sorting indices by them.
        packed = (keys << bits) | np.arange(size)
        packed.sort()
        by = packed & ((1 << bits) - 1)
        packed >>= bits
        rising = packed
    else:
        by = np.argsort(keys, kind="stable")
        rising = keys[by]
    new = np.empty(size, dtype=bool)
    new[:1] = True
    np.not_equal(rising[1:], rising[:-1], out=new[1:])
    firsts = np.flatnonzero(new)
    which = np.empty(size, np.int32)
    which[by] = np.cumsum(new, dtype=np.int32) - 1
    counts = np.diff(firsts, append=size).astype(np.int32)
    return SortedRun(rising[firsts], counts, numbers[positions[by[firsts]]].astype(np.int32)), which


def merge_runs(runs: Sequence[SortedRun], chunk: int) -> CountTable:
    """One table from several runs, merged one key range at a time: about one chunk is sorted in memory at once."""
    if len(runs) == 1:
        return CountTable(runs[0].keys, runs[0].counts, runs[0].suffixes)
    # Where the longest run is cut into pieces, all are cut at the same keys.
    longest = max(runs, key=lambda run: len(run.keys))
    step = max(1, chunk // len(runs))
    cuts = [np.searchsorted(run.keys, longest.keys[step::step]) for run in runs]
    edges = [[0, *map(int, cut), len(run.keys)] for cut, run in zip(cuts, runs, strict=True)]
    parts = []
    for number in range(len(edges[0]) - 1):
        here = [(run, slice(edge[number], edge[number + 1])) for run, edge in zip(runs, edges, strict=True)]
        keys = np.concatenate([run.keys[part] for run, part in here])
        by = np.argsort(keys, kind="stable")  # a merge sort: it finds the runs and merges them
        rising = keys[by]
        firsts = np.flatnonzero(np.diff(rising, prepend=-1))
        counts = np.concatenate([run.counts[part] for run, part in here])[by]
        suffixes = np.concatenate([run.suffixes[part] for run, part in here])[by]
        sums = np.add.reduceat(counts, firsts) if len(firsts) else counts[:0]
        parts.append((rising[firsts], sums, suffixes[firsts]))
    keys, sums, suffixes = (np.concatenate(each) for each in zip(*parts, strict=True))
    return CountTable(keys, sums, suffixes)
