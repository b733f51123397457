"""Counts of every n-gram of a text, in sorted arrays, order by order.

An n-gram has a key: the row of its beginning in the next shorter table, times the vocabulary size, plus its last token.
Rows number the sorted keys, so a table is a trie laid flat, and no key outgrows 64 bits: id · V^(n−1) would at order 5
with 50,000 tokens. The occurrences of the (n−1)-grams in the order of their rows are those of the n-grams grouped by
context, so that only the tokens after each context are left to sort.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput, BadSetting, VocabularyMismatch
from clearstory.models.ngram.config import MAX_ROWS
from clearstory.models.ngram.sorted_runs import (
    CountTable,
    Int64s,
    Ints,
    SortedRun,
    merge_runs,
    released,
    sort_groups,
    sorting_indices,
    write_memmap,
)
from clearstory.text.byte_attribution import TokenSequences

SORT_MEMORY_MB = 256
"""Default of training.sort_memory."""

TOKEN_BYTES = 32
"""Bytes of memory per token while a chunk is sorted."""

BLOCK = 2**17
"""Number of occurrences sorted at a time: their arrays fit in the processor's cache."""


def chunk_tokens(memory_mb: int) -> int:
    """Number of tokens of a chunk that can be sorted in this many megabytes."""
    return max(1024, memory_mb * 2**20 // TOKEN_BYTES)


def count_ngrams(
    dataset: TokenSequences,
    order: int,
    vocab: int,
    bos_token_id: int | None = None,
    chunk: int = chunk_tokens(SORT_MEMORY_MB),
) -> Generator[CountTable, None, None]:
    """Yield the tables of orders 1 to `order`. An n-gram lies within one document.

    Where `bos_token_id` is given, it precedes each document, and no n-gram reaches back past its last occurrence: where
    that token ends every line, lines are sentences. Order 1 has a row for every token of the vocabulary. The tables of
    a text longer than `chunk` tokens are memory maps of temporary files, which last as long as the arrays.

    Raises, before order 1, VocabularyMismatch for an id outside the vocabulary and BadSetting where no document is as
    long as `order`.

    >>> from types import SimpleNamespace
    >>> dataset = SimpleNamespace(ids=np.array([0, 1, 0, 1]), starts=np.array([0, 4]), byte_lengths=None)
    >>> [(table.keys.tolist(), table.counts.tolist()) for table in count_ngrams(dataset, 2, vocab=2)]
    [([0, 1], [2, 2]), ([1, 2], [2, 1])]
    """
    with tempfile.TemporaryDirectory(prefix="clearstory-counts-", ignore_cleanup_errors=True) as folder:
        text = TextCounter(dataset, order, vocab, bos_token_id, chunk, Path(folder))
        yield text.count_tokens()
        for length in range(2, order + 1):
            yield text.count_order(length)


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Occurrences of the n-grams of one order in one chunk, sorted by row.

    Args:
        rows: (K,) row of each distinct n-gram in the table of its order.
        counts: (K,) its occurrences in the chunk.
        ends: (M,) position after each occurrence.
        blocks: as in SortedRun.
    """

    rows: Ints
    counts: Ints
    ends: Ints
    blocks: Sequence[tuple[int, int]]

    def __iter__(self) -> Iterator[tuple[Ints, Int64s]]:
        """The row of each occurrence, and the position after it, one block after another."""
        for (start, begin), (stop, end) in pairwise(self.blocks):
            rows = np.repeat(self.rows[start:stop], self.counts[start:stop])
            yield rows, self.ends[begin:end].astype(np.int64)


class TextCounter:
    """Counts the n-grams of N tokens; arrays of N elements are on disk where the text is longer than a chunk."""

    def __init__(
        self, dataset: TokenSequences, order: int, vocab: int, bos_token_id: int | None, chunk: int, folder: Path
    ) -> None:
        self.ids: Ints = np.asanyarray(dataset.ids)
        self.starts = np.asarray(dataset.starts, dtype=np.int64)
        self.order, self.vocab, self.bos_token_id, self.folder, self.chunk = order, vocab, bos_token_id, folder, chunk
        if len(self.ids) >= MAX_ROWS:
            raise BadInput(
                f"the text has {len(self.ids):,} tokens, but at most {MAX_ROWS:,} can be counted; give a part of it"
            )
        self.files = 0
        self.history: npt.NDArray[np.uint8] = self.array(np.uint8)  # one element more than tokens: 0 after the last
        longest = self.measure_history(order)
        if longest < order - 1:
            raise BadSetting(
                f"model.order is {order}, but the longest sequence in this text has {longest + 1} tokens; set "
                f"model.order to {longest + 1} or less"
            )
        self.rows: Ints = self.ids  # row of the n-gram that ends at each position, of the last order counted
        self.occurrences: list[Occurrences] = []

    @property
    def on_disk(self) -> bool:
        """Whether the text has several chunks."""
        return len(self.ids) > self.chunk

    def chunks(self, size: int | None = None) -> Iterator[slice]:
        """Slices of the text, one chunk each."""
        size = size or self.chunk
        for start in range(0, len(self.ids), size):
            yield slice(start, min(start + size, len(self.ids)))

    def array(self, kind: type[np.generic]) -> Any:
        """An array with one element for each token and one more, in memory or on disk."""
        if not self.on_disk:
            return np.zeros(len(self.ids) + 1, kind)
        self.files += 1
        return np.memmap(self.folder / f"{self.files}.numbers", kind, "w+", shape=(len(self.ids) + 1,))

    def measure_history(self, order: int) -> int:
        """Store how many tokens precede each position in its sentence, up to order − 1. Returns the largest number."""
        first = 0 if self.bos_token_id is None else 1  # the start token before a document's first token
        last, most = 0, 0  # where the current sentence started
        for part in self.chunks(min(self.chunk, BLOCK)):
            resets = np.zeros(part.stop - part.start + 1, dtype=bool)
            inside = self.starts[slice(*np.searchsorted(self.starts, (part.start, part.stop)))]
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
                    f"the text holds token id {int(ids.max()):,}, but the model's vocabulary is {self.vocab:,}; build "
                    "it for the tokenizer of the text"
                )
            counts += np.bincount(ids, minlength=self.vocab)
        return CountTable(np.arange(self.vocab), counts, np.zeros(self.vocab, np.int32))

    def group_by_context(self, part: slice) -> Occurrences:
        """The positions of a chunk that have a token before them, by that token."""
        positions = part.start + np.flatnonzero(self.history[part] >= 1)
        contexts: Ints = self.ids[np.maximum(positions - 1, 0)]
        if self.bos_token_id is not None:
            inside = self.starts[slice(*np.searchsorted(self.starts, (part.start, part.stop)))]
            contexts[np.searchsorted(positions, inside)] = self.bos_token_id
        counts = np.bincount(contexts)
        rows = np.flatnonzero(counts)
        counts = counts[rows].astype(np.int32)
        last = np.cumsum(counts)
        edges = np.searchsorted(last, np.arange(BLOCK, len(contexts), BLOCK)) + 1
        edges = np.unique([0, *edges.tolist(), len(rows)])
        blocks = [(int(edge), int(last[edge - 1]) if edge else 0) for edge in edges]
        ends = positions[sorting_indices(contexts)].astype(np.int32)
        return Occurrences(rows.astype(np.int32), counts, ends, blocks)

    def count_order(self, order: int) -> CountTable:
        """The table of this order; the next shorter one must have been counted just before."""
        runs: list[SortedRun] = []
        for number, part in enumerate(self.chunks()):
            shorter = self.group_by_context(part) if order == 2 else self.occurrences[number]
            run = self.sort_chunk(shorter, order)
            runs.append(run.save(self.folder, f"run-{order}-{number}") if self.on_disk else run)
        table = merge_runs(runs, self.chunk, self.folder, f"table-{order}")
        self.occurrences, self.rows = [], self.ids
        if order < self.order:
            numbers: Ints = self.array(np.int32)
            for number, run in enumerate(runs):
                of_keys = np.arange(len(run.keys)) if len(runs) == 1 else np.searchsorted(table.keys, run.keys)
                occurrences = Occurrences(of_keys.astype(np.int32), run.counts, run.ends, run.blocks)
                for rows, ends in occurrences:
                    numbers[ends - 1] = rows
                self.occurrences.append(self.saved(occurrences, f"rows-{order}-{number}"))
            self.rows = numbers
        return released(table)

    def saved(self, occurrences: Occurrences, name: str) -> Occurrences:
        """The occurrences with their rows on disk, where the text has several chunks."""
        if not self.on_disk:
            return occurrences
        return replace(occurrences, rows=write_memmap(self.folder / name, occurrences.rows))

    def sort_chunk(self, shorter: Occurrences, order: int) -> SortedRun:
        """The n-grams of this order in one chunk, from the next shorter ones, which they begin with."""
        size = len(shorter.ends)
        keys, counts, suffixes = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.int32)
        ends = np.empty(size if order < self.order else 0, np.int32)
        blocks = [(0, 0)]
        for contexts, positions in shorter:
            inside = self.history[positions] >= order - 1
            if not inside.all():
                contexts, positions = contexts[inside], positions[inside]
            words = self.ids[positions]
            by = sort_groups(contexts, words)
            words, positions = words[by], positions[by]
            new = np.ones(len(words), dtype=bool)
            np.not_equal(contexts[1:], contexts[:-1], out=new[1:])
            new[1:] |= words[1:] != words[:-1]
            firsts = np.flatnonzero(new)
            (first, begin), (last, end) = blocks[-1], (blocks[-1][0] + len(firsts), blocks[-1][1] + len(words))
            keys[first:last] = contexts[firsts].astype(np.int64) * self.vocab + words[firsts]
            counts[first:last] = np.diff(firsts, append=len(words))
            suffixes[first:last] = self.rows[positions[firsts]]
            if order < self.order:
                ends[begin:end] = positions + 1
            blocks.append((last, end))
        n_distinct, n_found = blocks[-1]
        return SortedRun(keys[:n_distinct], counts[:n_distinct], suffixes[:n_distinct], ends[:n_found], blocks)
