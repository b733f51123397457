"""Counting: every n-gram of a text with how often it stands there, in sorted arrays, order by order.

An n-gram is known by a key: the row of its beginning in the table one shorter, times the vocabulary, plus its last
token. Rows number the sorted keys, so a table is a trie laid flat, and no key outgrows 64 bits: id · V^(n−1) would at
order 5 with 50,000 tokens. A text is counted stretch by stretch. A stretch is sorted in memory; where there are
several, what each gave waits on disk, and all are merged key range by key range.
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
from clearstory.models.ngram.config import MOST_ROWS

Whole = npt.NDArray[np.integer[Any]]
Wide = npt.NDArray[np.int64]

STRETCH = 2**22
"""Tokens sorted in memory at once: some 200 MB."""


@dataclass(frozen=True, eq=False)
class CountTable:
    """The n-grams of one order, by rising key; R rows.

    Args:
        keys: (R,) row of the beginning times V plus the last token. For order 1, the ids.
        counts: (R,) how often each stands in the text.
        endings: (R,) the row of what is left without the first token, in the table one shorter. For order 1, zeros.
    """

    keys: Wide
    counts: Whole
    endings: Whole

    def __len__(self) -> int:
        return len(self.keys)


def count_ngrams(
    rows: TokenSequences, order: int, vocab: int, begin: int | None = None, stretch: int = STRETCH
) -> Generator[CountTable, None, None]:
    """The tables of orders 1 to `order`, one after the other. An n-gram lies within a document.

    Each document is read after `begin`, where that is given, and an n-gram reaches back to the last `begin` and no
    further: where a token ends every line, lines are sentences. Order 1 has a row for every token of the vocabulary.

    Raises VocabularyMismatch for an id that is none, BadSetting where nothing is as long as `order`; before order 1.

    >>> from types import SimpleNamespace
    >>> rows = SimpleNamespace(ids=np.array([0, 1, 0, 1]), starts=np.array([0, 4]), byte_lengths=None)
    >>> [(table.keys.tolist(), table.counts.tolist()) for table in count_ngrams(rows, 2, vocab=2)]
    [([0, 1], [2, 2]), ([1, 2], [2, 1])]
    """
    with tempfile.TemporaryDirectory(prefix="clearstory-counts-") as folder:
        text = TextCounter(rows, order, vocab, begin, stretch, Path(folder))
        yield text.tokens()
        for length in range(2, order + 1):
            yield text.longer(length)


class TextCounter:
    """A text while it is counted. N tokens; arrays of N lie on disk where the text is longer than a stretch."""

    def __init__(self, rows: TokenSequences, order: int, vocab: int, begin: int | None, stretch: int, folder: Path) -> None:
        self.ids: Whole = np.asanyarray(rows.ids)
        self.starts = np.asarray(rows.starts, dtype=np.int64)
        self.vocab, self.begin, self.folder, self.stretch = vocab, begin, folder, stretch
        if len(self.ids) > MOST_ROWS:
            raise BadInput(
                f"the text has {len(self.ids):,} tokens, and {MOST_ROWS:,} can be counted; give a part of it"
            )
        self.files = 0
        self.reach: npt.NDArray[np.uint8] = self.array(np.uint8)
        longest = self.reaching(order)
        if longest < order - 1:
            raise BadSetting(
                f"model.order is {order}, and no more than {longest + 1} tokens stand together anywhere in "
                f"this text; set model.order to {longest + 1} or less"
            )
        self.numbers: Whole = self.ids  # the row of the n-gram that ends at each place, of the last order counted

    def stretches(self) -> Iterator[slice]:
        """The text in parts."""
        for start in range(0, len(self.ids), self.stretch):
            yield slice(start, min(start + self.stretch, len(self.ids)))

    def array(self, kind: type[np.generic]) -> Any:
        """A number for each token."""
        if len(self.ids) <= self.stretch:
            return np.zeros(len(self.ids), kind)
        self.files += 1
        return np.memmap(self.folder / f"{self.files}.numbers", kind, "w+", shape=(len(self.ids),))

    def reaching(self, order: int) -> int:
        """Write down how many tokens stand before each, up to order − 1; the most that there are."""
        first = 0 if self.begin is None else 1  # what stands before a document's first token
        last, most = 0, 0  # where the present sentence began
        for part in self.stretches():
            resets = np.zeros(part.stop - part.start + 1, dtype=bool)
            inside = self.starts[(self.starts >= part.start) & (self.starts < part.stop)]
            resets[inside - part.start] = True
            if self.begin is not None:
                resets[1:] |= self.ids[part] == self.begin
                if part.start and self.ids[part.start - 1] == self.begin:
                    resets[0] = True
            places = np.arange(part.start, part.stop)
            began = np.maximum.accumulate(np.where(resets[:-1], places, last))
            before = places - began + first
            most = max(most, int(before.max(initial=0)))
            self.reach[part] = np.minimum(before, order - 1)
            last = int(began[-1])
        return most

    def tokens(self) -> CountTable:
        """Order 1."""
        counts = np.zeros(self.vocab, np.int64)
        for part in self.stretches():
            ids = self.ids[part]
            if len(ids) and int(ids.max()) >= self.vocab:
                raise VocabularyMismatch(
                    f"the text holds token id {int(ids.max()):,}, and the model knows {self.vocab:,}; "
                    "build it for the tokenizer that made the text"
                )
            counts += np.bincount(ids, minlength=self.vocab)
        return CountTable(np.arange(self.vocab), counts, np.zeros(self.vocab, np.int32))

    def longer(self, order: int) -> CountTable:
        """The n-grams of this order, once those one shorter are counted."""
        numbers: Whole = self.array(np.int32)
        runs: list[SortedRun] = []
        for part in self.stretches():
            places = part.start + np.flatnonzero(self.reach[part] >= order - 1)
            keys = self.beginnings(places, order).astype(np.int64)
            keys *= self.vocab
            keys += self.ids[places]
            run, order_of = group_keys(keys, self.numbers, places)
            numbers[places] = order_of
            runs.append(run if len(self.ids) <= self.stretch else run.put(self.folder, len(runs)))
        table = merge_runs(runs, self.stretch)
        if len(runs) > 1:
            for part, run in zip(self.stretches(), runs, strict=True):
                places = part.start + np.flatnonzero(self.reach[part] >= order - 1)
                numbers[places] = np.searchsorted(table.keys, run.keys)[numbers[places]]
        self.numbers = numbers
        return table

    def beginnings(self, places: Wide, order: int) -> Whole:
        """The row of the n-gram one shorter that ends before each of these places."""
        before = self.numbers[np.maximum(places - 1, 0)]
        if order == 2 and self.begin is not None:
            firsts = np.isin(places, self.starts) if len(self.starts) > 2 else places == 0
            before = np.where(firsts, self.begin, before)
        return before


@dataclass(frozen=True, eq=False)
class SortedRun:
    """What one stretch gave: rising keys, their counts and endings."""

    keys: Wide
    counts: Whole
    endings: Whole

    def put(self, folder: Path, number: int) -> SortedRun:
        """The same, on disk."""
        return SortedRun(*(write_memmap(folder / f"run-{number}.{name}", getattr(self, name)) for name in PARTS))


PARTS = ("keys", "counts", "endings")


def write_memmap(file: Path, values: Any) -> Any:
    """The same numbers, on disk."""
    if not len(values):  # an empty file cannot be mapped
        return values
    place = np.memmap(file, values.dtype, "w+", shape=values.shape)
    place[:] = values
    return place


def group_keys(keys: Wide, numbers: Whole, places: Wide) -> tuple[SortedRun, Whole]:
    """Equal keys put together; and for each key as it came, which one it is."""
    size = len(keys)
    bits = size.bit_length()
    if size and int(keys.max()).bit_length() + bits < 63:
        # Key and place in one number: sorting values is five times as fast as sorting places by them.
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
    return SortedRun(rising[firsts], counts, numbers[places[by[firsts]]].astype(np.int32)), which


def merge_runs(runs: Sequence[SortedRun], stretch: int) -> CountTable:
    """One table of several runs: range by range of keys, so that no more than about a stretch is sorted at a time."""
    if len(runs) == 1:
        return CountTable(runs[0].keys, runs[0].counts, runs[0].endings)
    # Where the longest run is cut into pieces, all are cut at the same keys.
    longest = max(runs, key=lambda run: len(run.keys))
    step = max(1, stretch // len(runs))
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
        endings = np.concatenate([run.endings[part] for run, part in here])[by]
        sums = np.add.reduceat(counts, firsts) if len(firsts) else counts[:0]
        parts.append((rising[firsts], sums, endings[firsts]))
    keys, sums, endings = (np.concatenate(each) for each in zip(*parts, strict=True))
    return CountTable(keys, sums, endings)
