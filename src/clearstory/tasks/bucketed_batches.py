"""BucketedBatches: shuffled batches of rows of similar length, of a number of rows or of a number of tokens; batch i is
a function of (rows, seed, i).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadInput
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.seq2seq import even_stops

POOL_BATCHES = 50
"""Batches in a pool of rows that are sorted by length, as `group_by_length` of transformers has it."""


@runtime_checkable
class Row(Protocol):
    """One input of a model, encoded: its number of tokens, special tokens included, and the index of its example."""

    @property
    def length(self) -> int:
        """Number of tokens, special tokens included."""

    @property
    def example(self) -> int:
        """Index of the example that it is, or is a part of."""


R = TypeVar("R", bound=Row)


class BucketedBatches(Generic[R]):
    """Batches of rows of similar length, every row once per epoch; the last batch of an epoch can be smaller.

    Rows are shuffled, split into pools of fifty batches, and sorted by length within each pool; then the batches of the
    epoch are shuffled. `collate` makes a batch of rows.

    With `batch_tokens`, all rows are sorted by length, rows of equal length in random order, and split into batches of
    at most `batch_tokens` tokens, including padding, with any number of rows; then the batches are shuffled.
    """

    def __init__(
        self,
        rows: Sequence[R],
        batch_size: int,
        seed: int,
        collate: Callable[[Sequence[R]], TensorBatch],
        batch_tokens: int | None = None,
    ) -> None:
        if not rows:
            raise BadInput("there is no training example; give more data, or hold out less of it")
        self.rows = rows
        self.lengths = np.array([row.length for row in rows])
        # The texts of a row may be padded apart from each other.
        self.parts = np.array([getattr(row, "parts", (row.length,)) for row in rows])
        self.batch_size = batch_size
        self.seed = seed
        self.collate = collate
        self.stops: npt.NDArray[np.int64] | None = None
        if batch_tokens:
            self.stops = even_stops(self.parts[self.by_length(np.arange(len(rows)))], len(rows), batch_tokens)
        self.batches_per_epoch = -(-len(rows) // batch_size) if self.stops is None else len(self.stops)
        self.tokens_per_batch = int(self.lengths.sum()) // self.batches_per_epoch
        self.order = lru_cache(maxsize=1)(self.epoch_order)

    def batch(self, index: int) -> Any:  # what `collate` makes
        """Batch `index`, for any index from 0."""
        epoch, batch_in_epoch = divmod(index, self.batches_per_epoch)
        return self.collate([self.rows[row] for row in self.order(epoch)[batch_in_epoch].tolist()])

    def continues(self, index: int) -> bool:
        """False: rows are shuffled."""
        return False

    def epoch_order(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """The rows of every batch of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        shuffled, size = rng.permutation(len(self.rows)), self.batch_size * POOL_BATCHES
        if self.stops is not None:  # the same lengths in every epoch, so the same cuts
            cut = np.split(self.by_length(shuffled), self.stops[:-1])
            return [cut[index] for index in rng.permutation(len(cut))]
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(shuffled), size):
            pool = shuffled[start : start + size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[first : first + self.batch_size] for first in range(0, len(pool), self.batch_size)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def by_length(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows by the length of the part that is longest in total, then by those of the others; ties keep order."""
        keys = self.parts[rows][:, np.argsort(self.parts.sum(0), kind="stable")]
        return rows[np.lexsort(tuple(keys.T))]

    @property
    def padding_share(self) -> float:
        """Share of padding among the positions of the first epoch's batches."""
        padded = sum(len(batch) * int(self.parts[batch].max(0).sum()) for batch in self.order(0))
        return 1 - int(self.lengths.sum()) / padded
