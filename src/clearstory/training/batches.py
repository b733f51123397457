"""Batches: windows of a long row of tokens, in an order that depends on nothing but a seed and a number.

The i-th batch is a function of (rows, seed, i). A run that resumes at step i therefore needs no saved data position:
the step is the position.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.models.base import Padded


class Rows(Protocol):
    """Token ids of one split, end to end: what `text.corpus.TokenRows` is."""

    @property
    def ids(self) -> npt.NDArray[np.generic]:
        """All ids, (N,)."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads, and what it should say: targets[b, t] follows tokens[b, t]."""

    tokens: Padded
    targets: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        lengths = None if self.tokens.lengths is None else self.tokens.lengths.to(device)
        return replace(self, tokens=Padded(self.tokens.ids.to(device), lengths), targets=self.targets.to(device))


class Windows:
    """Windows of `context` tokens cut from a long row, every epoch from another offset and in another order.

    Every token is read once an epoch, but for less than a window at either end. Documents lie end to end ("packing"):
    a window may hold the end of one and the start of the next, with the separator between them.
    """

    def __init__(self, rows: Rows, context: int, batch_size: int, seed: int) -> None:
        have = len(rows.ids)
        if have < context + 1:
            raise BadInput(
                f"the training split has {have:,} tokens, and one window needs {context + 1:,}; "
                f"use more text, or --training.context {max(1, have - 1)} or less"
            )
        self.rows = rows
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        # The same for every offset, so that a place in the order tells its epoch.
        self.per_epoch = max(1, (have - context) // context)
        self.order: tuple[int, npt.NDArray[np.int64]] | None = None

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        starts = np.concatenate(
            [
                self.starts(int(epoch))[places[places // self.per_epoch == epoch] % self.per_epoch]
                for epoch in np.unique(places // self.per_epoch)
            ]
        )
        ids = self.rows.ids[starts[:, None] + np.arange(self.context + 1)].astype(np.int64)
        both = torch.from_numpy(ids)
        return Batch(Padded(both[:, :-1]), both[:, 1:])

    def starts(self, epoch: int) -> npt.NDArray[np.int64]:
        """Where the windows of an epoch begin, in the order in which they are read."""
        if self.order is None or self.order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            room = len(self.rows.ids) - 1 - self.per_epoch * self.context
            offset = int(rng.integers(0, min(room, self.context - 1) + 1))
            self.order = (epoch, offset + rng.permutation(self.per_epoch).astype(np.int64) * self.context)
        return self.order[1]
