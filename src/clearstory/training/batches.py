"""Batches: pieces of a long row of tokens, in an order that depends on nothing but a seed and a number.

Windows come shuffled, each on its own: for models that look back over a context. Streams go on where the batch before
ended: for models that remember.

The i-th batch is a function of (rows, seed, i). A run that resumes at step i therefore needs no saved data position:
the step is the position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.models.base import TokenBatch


class Rows(Protocol):
    """Token ids of one split, end to end: what `text.corpus.TokenDataset` is."""

    @property
    def ids(self) -> npt.NDArray[np.generic]:
        """All ids, (N,)."""

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where documents begin, and the end, (D + 1,); asked for by aligned windows only."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads, and what it should say: targets[b, t] follows tokens[b, t], or stood there before it
    was masked. What is written from a `source` has one for each row. Of pairs of texts, `segments` say which of the two
    a token is of, and `strangers` are 1 where the second does not follow the first.
    """

    tokens: TokenBatch
    targets: Int[Tensor, "B T"]
    segments: Int[Tensor, "B T"] | None = None
    is_not_next: Int[Tensor, "B"] | None = None
    source: TokenBatch | None = None

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        if device.type == "cpu":
            return self

        def there(part: Tensor) -> Tensor:
            if device.type != "cuda":
                return part.to(device)
            # From locked pages a GPU copies by itself, while it is told what to do next.
            return part.contiguous().pin_memory().to(device, non_blocking=True)

        return self.each(there)

    def rows(self, start: int, stop: int) -> Self:
        """Some of its rows: a micro-batch."""
        return self.each(lambda tensor: tensor[start:stop])

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with all of its tensors changed."""
        whole = {field.name: getattr(self, field.name) for field in fields(self)}
        parts: dict[str, Tensor | TokenBatch] = {}
        for name, value in whole.items():
            if isinstance(value, Tensor):
                parts[name] = change(value)
            elif isinstance(value, TokenBatch):
                lengths = None if value.lengths is None else change(value.lengths)
                parts[name] = TokenBatch(change(value.ids), lengths)
        return replace(self, **cast(dict[str, Any], parts))

    @property
    def size(self) -> int:
        """How many tokens are read, padding excepted."""
        return real(self.tokens) + (0 if self.source is None else real(self.source))


def real(tokens: TokenBatch) -> int:
    """How many tokens there are, padding excepted."""
    return tokens.ids.numel() if tokens.lengths is None else int(tokens.lengths.sum())


class Batches(Protocol):
    """The batches of a split, in order."""

    def batch(self, number: int) -> Batch:
        """The number-th, however far that is."""

    def continues(self, number: int) -> bool:
        """Whether its rows continue those of the one before, so that a memory of them is worth carrying over."""


class Windows:
    """Windows of `context` tokens cut from a long row, every epoch from another offset and in another order.

    Every token is read once an epoch, but for less than a window at either end. Documents lie end to end ("packing"):
    a window may hold the end of one and the start of the next, with the separator between them.

    `align`: each begins where a document does, with the separator before it, as a prompt begins; or so many windows
    further on in a long one. Every document is begun with once an epoch, and what follows a short one in its window is
    read again in another. The first is never begun with, nor is one less than a window from the end.
    """

    def __init__(self, rows: Rows, context: int, batch_size: int, seed: int, align_documents: bool = False) -> None:
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
        self.aligned = aligned(rows, context) if align_documents else None
        # The same for every offset, so that a place in the order tells its epoch.
        self.per_epoch = max(1, (have - context) // context) if self.aligned is None else len(self.aligned)
        self.starts = lru_cache(maxsize=1)(self.shuffled)

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        starts = np.concatenate(
            [
                self.starts(int(epoch))[places[places // self.per_epoch == epoch] % self.per_epoch]
                for epoch in np.unique(places // self.per_epoch)
            ]
        )
        return cut(self.rows, starts, self.context)

    def continues(self, number: int) -> bool:
        """Never: windows are shuffled."""
        return False

    def shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        """Where the windows of an epoch begin, in the order in which they are read."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.aligned is not None:
            return rng.permutation(self.aligned)
        room = len(self.rows.ids) - 1 - self.per_epoch * self.context
        offset = int(rng.integers(0, min(room, self.context - 1) + 1))
        return offset + rng.permutation(self.per_epoch).astype(np.int64) * self.context


def aligned(rows: Rows, context: int) -> npt.NDArray[np.int64]:
    """Where windows begin that begin with documents, in order. Raises BadInput where there are none."""
    before, sizes = rows.starts[1:-1] - 1, np.diff(rows.starts)[1:]
    windows = -(-sizes // context)
    nth = np.arange(windows.sum()) - np.repeat(windows.cumsum() - windows, windows)
    places: npt.NDArray[np.int64] = np.repeat(before, windows) + nth * context
    places = places[places + context < len(rows.ids)]
    if not len(places):
        raise BadInput(
            f"no document but the first begins a window of {context:,} tokens before the text ends; "
            "use more documents, a smaller --training.context, or --training.align_documents false"
        )
    return places


class StreamBatches:
    """The row cut into `batch_size` long pieces that are read side by side, `context` tokens of each in every batch.

    What a model remembers of one batch goes on in the next (truncated backpropagation through time, Williams and Peng
    1990), until an epoch ends and the next one begins at another offset.
    """

    def __init__(self, rows: Rows, context: int, batch_size: int, seed: int) -> None:
        have = len(rows.ids) - 1
        self.length = have // batch_size
        if self.length < context:
            raise BadInput(
                f"the training split has {have + 1:,} tokens, and {batch_size:,} streams of {context:,} need "
                f"{batch_size * context + 1:,}; use more text, or a smaller --training.batch_size or --training.context"
            )
        self.rows = rows
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.per_epoch = max(1, (self.length - context) // context)

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        epoch, place = divmod(number, self.per_epoch)
        room = self.length - self.per_epoch * self.context
        offset = int(np.random.default_rng([self.seed, epoch]).integers(0, min(room, self.context - 1) + 1))
        starts = offset + place * self.context + self.length * np.arange(self.batch_size)
        return cut(self.rows, starts, self.context)

    def continues(self, number: int) -> bool:
        """Until the epoch ends."""
        return number % self.per_epoch != 0


def cut(rows: Rows, starts: npt.NDArray[np.int64], context: int) -> Batch:
    """Windows that begin at these places."""
    both = torch.from_numpy(rows.ids[starts[:, None] + np.arange(context + 1)].astype(np.int64))
    return Batch(TokenBatch(both[:, :-1]), both[:, 1:])
