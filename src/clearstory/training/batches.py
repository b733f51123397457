"""Training batches cut from a token sequence; batch i is a function of (dataset, seed, i).

`WindowBatches` are shuffled windows, for models with a context. `StreamBatches` continue where the previous batch
ended, for models with a recurrent state. A run that resumes at step i needs no saved data position: the step is the
position.
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
from clearstory.models.base import TokenBatch, TokenSequences


@dataclass(frozen=True)
class TensorBatch:
    """Input tensors of one forward pass, (B, ...). Subclasses add the targets.

    Args:
        tokens: input ids, (B, T).
    """

    tokens: TokenBatch

    def to(self, device: torch.device) -> Self:
        """The batch on `device`."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            if device.type != "cuda":
                return tensor.to(device)
            # A GPU copies asynchronously from pinned memory.
            return tensor.contiguous().pin_memory().to(device, non_blocking=True)

        return self.map(move)

    def split(self, parts: int) -> list[Self]:
        """The batch in at most `parts` micro-batches of equal size, the last possibly smaller, none of them empty."""
        n_sequences = len(self.tokens.ids)
        size = -(-n_sequences // parts)
        return [self.micro_batch(start, start + size) for start in range(0, n_sequences, size)]

    def micro_batch(self, start: int, stop: int) -> Self:
        """Sequences start:stop of the batch."""
        return self.map(lambda tensor: tensor[start:stop])

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The batch with `function` applied to every tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mapped: dict[str, Tensor | TokenBatch] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                mapped[name] = function(value)
            elif isinstance(value, TokenBatch):
                lengths = None if value.lengths is None else function(value.lengths)
                mapped[name] = TokenBatch(function(value.ids), lengths)
        return replace(self, **cast(dict[str, Any], mapped))

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all inputs, padding not counted."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(count_tokens(value) for value in values if isinstance(value, TokenBatch))


@dataclass(frozen=True)
class Batch(TensorBatch):
    """Inputs and targets of one forward pass of a language model.

    Args:
        tokens: input ids, (B, T).
        targets: target ids, (B, T): the next token, or the original of a masked one; IGNORE_INDEX where none is scored.
        token_type_ids: 0 for tokens of the first text, 1 for those of the second, (B, T); None without pairs of texts.
        is_not_next: 1 where the second text does not follow the first, (B,); None without pairs of texts.
        source: source ids of an encoder-decoder, (B, S).
    """

    targets: Int[Tensor, "B T"]
    token_type_ids: Int[Tensor, "B T"] | None = None
    is_not_next: Int[Tensor, "B"] | None = None
    source: TokenBatch | None = None


def count_tokens(tokens: TokenBatch) -> int:
    """Number of tokens without padding."""
    return tokens.ids.numel() if tokens.lengths is None else int(tokens.lengths.sum())


class Batches(Protocol):
    """The batches of a split, in order."""

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""

    def continues(self, index: int) -> bool:
        """Whether the sequences of batch `index` continue those of the previous batch, so that its state applies."""


class WindowBatches:
    """Windows of `context` tokens, with a random offset and a random order in each epoch.

    Every token is read once an epoch, except for less than one window at either end. Documents are packed end to end: a
    window may hold the end of one document and the start of the next, with the separator between them.

    With `align_documents`, each window begins at a document's start (with the separator before it, as a prompt begins)
    or a whole number of windows later in a long document. Every document begins a window once an epoch, and the tokens
    after a short one are read again in another window. The first document begins none, nor does one that ends less than
    a window before the end of the data. With `shuffle_documents` and without `align_documents`, documents are packed in
    another random order in each epoch.
    """

    def __init__(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        align_documents: bool = False,
        shuffle_documents: bool = False,
    ) -> None:
        n_tokens = len(dataset.ids)
        if n_tokens < context + 1:
            raise BadInput(
                f"the training split has {n_tokens:,} tokens, but one window needs {context + 1:,}; "
                f"use more text, or --training.context {max(1, n_tokens - 1)} or less"
            )
        self.dataset = dataset
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.aligned_starts = aligned_starts(dataset, context) if align_documents else None
        # The same for every offset, so that an index determines its epoch.
        if self.aligned_starts is None:
            self.windows_per_epoch = max(1, (n_tokens - context) // context)
        else:
            self.windows_per_epoch = len(self.aligned_starts)
        self.starts = lru_cache(maxsize=1)(self.shuffled_starts)
        self.ids = epoch_ids(dataset, seed, shuffle_documents and not align_documents)

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        windows = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        epochs = windows // self.windows_per_epoch
        parts = [
            cut_windows(
                self.ids(epoch), self.starts(epoch)[windows[epochs == epoch] % self.windows_per_epoch], self.context
            )
            for epoch in np.unique(epochs).tolist()
        ]
        return next_token_batch(np.concatenate(parts))

    def continues(self, index: int) -> bool:
        """False: windows are shuffled."""
        return False

    def shuffled_starts(self, epoch: int) -> npt.NDArray[np.int64]:
        """First positions of an epoch's windows in reading order, (N,)."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.aligned_starts is not None:
            return rng.permutation(self.aligned_starts)
        spare = len(self.dataset.ids) - 1 - self.windows_per_epoch * self.context
        offset = int(rng.integers(0, min(spare, self.context - 1) + 1))
        return offset + rng.permutation(self.windows_per_epoch).astype(np.int64) * self.context


def aligned_starts(dataset: TokenSequences, context: int) -> npt.NDArray[np.int64]:
    """First positions of the windows that begin with documents, (N,). Raises BadInput if there are none."""
    before, sizes = dataset.starts[1:-1] - 1, np.diff(dataset.starts)[1:]
    n_windows = -(-sizes // context)
    nth = np.arange(n_windows.sum()) - np.repeat(n_windows.cumsum() - n_windows, n_windows)
    starts: npt.NDArray[np.int64] = np.repeat(before, n_windows) + nth * context
    starts = starts[starts + context < len(dataset.ids)]
    if not len(starts):
        raise BadInput(
            f"no document except the first starts a window of {context:,} tokens before the text ends; "
            "use more documents, a smaller --training.context, or --training.align_documents false"
        )
    return starts


class StreamBatches:
    """The data split into `batch_size` parallel streams; each batch has the next `context` tokens of every stream.

    A model's state after one batch is its initial state for the next (truncated backpropagation through time, Williams
    and Peng 1990), until the epoch ends and the next one begins at another offset; with `shuffle_documents`, with the
    documents in another random order.
    """

    def __init__(
        self, dataset: TokenSequences, context: int, batch_size: int, seed: int, shuffle_documents: bool = False
    ) -> None:
        n_targets = len(dataset.ids) - 1
        self.stream_length = n_targets // batch_size
        if self.stream_length < context:
            raise BadInput(
                f"the training split has {n_targets + 1:,} tokens, but {batch_size:,} streams of {context:,} need "
                f"{batch_size * context + 1:,}; use more text, or a smaller --training.batch_size or --training.context"
            )
        self.dataset = dataset
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.batches_per_epoch = max(1, (self.stream_length - context) // context)
        self.ids = epoch_ids(dataset, seed, shuffle_documents)

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        epoch, batch_in_epoch = divmod(index, self.batches_per_epoch)
        spare = self.stream_length - self.batches_per_epoch * self.context
        offset = int(np.random.default_rng([self.seed, epoch]).integers(0, min(spare, self.context - 1) + 1))
        starts = offset + batch_in_epoch * self.context + self.stream_length * np.arange(self.batch_size)
        return next_token_batch(cut_windows(self.ids(epoch), starts, self.context))

    def continues(self, index: int) -> bool:
        """True except for the first batch of an epoch."""
        return index % self.batches_per_epoch != 0


class ShuffledIds:
    """The ids of a dataset with its documents in random order, indexed like an array, without a copy."""

    def __init__(self, dataset: TokenSequences, rng: np.random.Generator) -> None:
        starts = np.asarray(dataset.starts)
        order = rng.permutation(len(starts) - 1)
        sizes = np.diff(starts)[order]
        self.ids = dataset.ids
        self.ends = sizes.cumsum()
        self.shifts = starts[:-1][order] - (self.ends - sizes)

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        chosen: npt.NDArray[Any] = self.ids[
            positions + self.shifts[np.searchsorted(self.ends, positions, side="right")]
        ]
        return chosen


def epoch_ids(dataset: TokenSequences, seed: int, shuffle_documents: bool) -> Callable[[int], Any]:
    """A function from an epoch to the ids that its batches are cut from."""
    if not shuffle_documents:
        return lambda epoch: dataset.ids
    return lru_cache(maxsize=1)(lambda epoch: ShuffledIds(dataset, np.random.default_rng([seed, epoch, SHUFFLE])))


SHUFFLE = 1
"""Third component of the seed of an epoch's document order; the seed of its windows has two components."""


def cut_windows(ids: Any, starts: npt.NDArray[np.int64], context: int) -> npt.NDArray[np.int64]:
    """The ids of the windows that begin at `starts` (B,), with the token after each, (B, context + 1)."""
    windows: npt.NDArray[np.int64] = ids[starts[:, None] + np.arange(context + 1)].astype(np.int64)
    return windows


def next_token_batch(ids: npt.NDArray[np.int64]) -> Batch:
    """Windows with the next token as each position's target."""
    windows = torch.from_numpy(ids)
    return Batch(TokenBatch(windows[:, :-1]), windows[:, 1:])
