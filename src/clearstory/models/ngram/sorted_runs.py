"""Sorted runs: the n-grams of each chunk of a text by rising key, merged into one table.

External merge sort (Knuth, volume 3, section 5.4): where a text has several chunks, the run of each lies on disk, and
all are merged one key range at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]
Int64s = npt.NDArray[np.int64]


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


@dataclass(frozen=True, eq=False)
class SortedRun:
    """The n-grams of one chunk, K of them by rising key, with all M occurrences in the same order.

    Args:
        keys: (K,) as in CountTable.
        counts: (K,) occurrences in the chunk.
        suffixes: (K,) as in CountTable.
        ends: (M,) position after each occurrence; empty for the longest order, which no n-gram continues.
        blocks: how many n-grams and how many occurrences lie before each block of about equal size, and in all.
    """

    keys: Int64s
    counts: Ints
    suffixes: Ints
    ends: Ints
    blocks: Sequence[tuple[int, int]]

    def save(self, folder: Path, name: str) -> SortedRun:
        """The same run with its arrays on disk."""
        arrays = (self.keys, self.counts, self.suffixes, self.ends)
        saved = (write_memmap(folder / f"{name}-{at}", values) for at, values in enumerate(arrays))
        keys, counts, suffixes, ends = saved
        return SortedRun(keys, counts, suffixes, ends, self.blocks)


def write_memmap(file: Path, values: Any) -> Any:
    """The same array as a memory map of a new file; an empty array stays in memory, where no file can be mapped."""
    if not len(values):
        return values
    values.tofile(file)
    return np.memmap(file, values.dtype, "r", shape=values.shape)


def remapped(values: Any) -> Any:
    """A memory map opened again, which frees the pages that were read. Other arrays are returned unchanged."""
    if not isinstance(values, np.memmap) or values.filename is None:
        return values
    mode: Any = values.mode
    return np.memmap(values.filename, values.dtype, mode, shape=values.shape)


def read_part(values: Any, part: slice) -> Any:
    """A slice of an array. That of a memory map is read from its file, so that it leaves memory with the result."""
    if not isinstance(values, np.memmap) or values.filename is None:
        return values[part]
    return np.fromfile(values.filename, values.dtype, part.stop - part.start, offset=part.start * values.dtype.itemsize)


def sort_groups(groups: Ints, words: Ints) -> Int64s:
    """Indices that sort `words` within each run of equal numbers in `groups`, (M,).

    Most contexts of long n-grams occur once: only the others are sorted.

    >>> sort_groups(np.array([4, 4, 4, 7, 9, 9]), np.array([2, 0, 1, 5, 1, 0])).tolist()
    [1, 2, 0, 3, 5, 4]
    """
    indices = np.arange(len(groups))
    starts = np.empty(len(groups) + 1, dtype=bool)
    starts[:1] = starts[-1:] = True
    np.not_equal(groups[1:], groups[:-1], out=starts[1:-1])
    several = np.flatnonzero(~(starts[:-1] & starts[1:]))
    if len(several):
        numbers = np.cumsum(starts[several], dtype=np.int32)
        indices[several] = several[sorting_indices(words[several], numbers)]
    return indices


def sorting_indices(*keys: Ints) -> Int64s:
    """Indices that sort by the last of `keys`, then by the one before it, as np.lexsort; numbers are not negative.

    A radix sort of 16-bit digits, which numpy sorts in a fifth of the time of larger numbers.

    >>> sorting_indices(np.array([3, 1, 70000, 1])).tolist()
    [1, 3, 0, 2]
    """
    indices: Int64s = np.arange(len(keys[0]))
    for key in keys:
        for shift in range(0, int(key.max(initial=0)).bit_length(), 16):
            digits = ((key >> shift) & 0xFFFF if shift else key).astype(np.uint16)
            indices = indices[np.argsort(digits[indices], kind="stable")]
    return indices


def merge_runs(runs: Sequence[SortedRun], rows: int, folder: Path, name: str) -> CountTable:
    """One table from several runs, about `rows` rows in memory at once. One run alone stays where it is."""
    if len(runs) == 1:
        return CountTable(runs[0].keys, runs[0].counts, runs[0].suffixes)
    kinds: dict[str, type[np.signedinteger[Any]]] = {"keys": np.int64, "counts": np.int32, "suffixes": np.int32}
    files = {each: folder / f"{name}.{each}" for each in kinds}
    size = 0
    with ExitStack() as opened:
        outputs = {each: opened.enter_context(open(file, "wb")) for each, file in files.items()}
        for merged in merge_ranges(runs, rows):
            size += len(merged)
            for each, kind in kinds.items():
                getattr(merged, each).astype(kind, copy=False).tofile(outputs[each])
    arrays: dict[str, Any] = {each: np.empty(0, kind) for each, kind in kinds.items()}
    if size:
        arrays = {each: np.memmap(files[each], kind, "r+", shape=(size,)) for each, kind in kinds.items()}
    return CountTable(**arrays)


def merge_ranges(runs: Sequence[SortedRun], rows: int) -> Iterator[CountTable]:
    """The merged rows of several runs, one key range after another, of about `rows` rows of the runs together."""
    # Where the longest run is cut into pieces, all are cut at the same keys.
    longest = max(runs, key=lambda run: len(run.keys))
    step = max(1, rows // len(runs))
    cuts = [np.searchsorted(run.keys, longest.keys[step::step]) for run in runs]
    edges = [[0, *map(int, cut), len(run.keys)] for cut, run in zip(cuts, runs, strict=True)]
    for number in range(len(edges[0]) - 1):
        here = [(run, slice(edge[number], edge[number + 1])) for run, edge in zip(runs, edges, strict=True)]
        keys = np.concatenate([read_part(run.keys, part) for run, part in here])
        by = np.argsort(keys, kind="stable")  # a merge sort: it finds the runs and merges them
        keys = keys[by]
        firsts = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.concatenate([read_part(run.counts, part) for run, part in here])[by]
        suffixes = np.concatenate([read_part(run.suffixes, part) for run, part in here])[by[firsts]]
        sums = np.add.reduceat(counts, firsts) if len(firsts) else counts[:0]
        yield CountTable(keys[firsts], sums, suffixes)


def released(table: CountTable) -> CountTable:
    """The table, with what was read of its files dropped from memory."""
    return replace(table, keys=remapped(table.keys), counts=remapped(table.counts), suffixes=remapped(table.suffixes))
