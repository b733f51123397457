"""What every language model can do: begin, read, predict, score.

Letters in shapes: B rows, T tokens, V vocabulary, W width, H heads, N tokens of all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.models.capabilities import Capability


@dataclass(frozen=True)
class TokenBatch:
    """Token ids with their lengths, so that no model guesses where padding is.

    `lengths` is None when every row is full: the common case, and the fast one.

    >>> TokenBatch.from_sequences([[5, 6, 7], [8]]).ids.tolist()
    [[5, 6, 7], [8, 0, 0]]
    """

    ids: Int[Tensor, "B T"]
    lengths: Int[Tensor, "B"] | None = None

    @classmethod
    def from_sequences(cls, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Self:
        """Rows of any lengths, padded on the right with id 0, which nobody reads."""
        longest = max((len(row) for row in rows), default=0)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        if all(len(row) == longest for row in rows):
            return cls(ids.to(device))
        return cls(ids.to(device), torch.tensor([len(row) for row in rows], device=device))

    def last_positions(self) -> Int[Tensor, "B"]:
        """The place of each row's last real token."""
        if self.lengths is None:
            return torch.full((self.ids.shape[0],), self.ids.shape[1] - 1, device=self.ids.device)
        return self.lengths - 1


@runtime_checkable
class State(Protocol):
    """What a model remembers of each row it has read. A value: reading makes a new one and leaves the old as it was.

    Keep one and read on from it twice, and both continuations are right; memory is shared up to where they part.
    """

    @property
    def lengths(self) -> list[int]:
        """Tokens each row has read."""

    def select(self, rows: Sequence[int]) -> Self:
        """These rows, in this order. Shares; a row named twice is copied when the second of the two is read on."""

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states, to be read on together; ragged lengths and all."""

    def detach(self) -> Self:
        """The same memory, cut off from the graph of gradients."""

    def tensors(self) -> dict[str, Tensor]:
        """The memory as named tensors, to be saved in a checkpoint."""


@runtime_checkable
class RestorableState(State, Protocol):
    """A State that goes on from one batch of training to the next, and so must come back from a checkpoint."""

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The one of as many rows that gave these `tensors`. Raises KeyError where something is missing."""


@runtime_checkable
class LanguageModel(Protocol):
    """Reads left to right; after every token says how likely each next one is."""

    vocab: int
    context: int | None  # None: it never forgets on purpose

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the model can do and which parts it has."""

    def init_state(self, batch_size: int = 1) -> State:
        """The memory of `batch_size` rows that have read nothing."""

    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], State | None]:
        """What the model knows after each token. Without a state nothing is remembered: the way training reads."""

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token, only where asked for."""

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T"], State | None]:
        """Nats of each target after reading up to it; 0 where the target is IGNORE_INDEX. Dense logits are never kept."""


@dataclass(frozen=True)
class FitProgress:
    """One finished round of counting. `nats` per token of the training text, where the round knows them; a `note` is
    what its user should know.
    """

    tokens: int
    nats: float | None = None
    note: str | None = None


class TokenSequences(Protocol):
    """Documents as one long row of ids: document d is ids[starts[d]:starts[d + 1]]."""

    @property
    def ids(self) -> Any:
        """(N,)"""

    @property
    def starts(self) -> Any:
        """(D + 1,)"""

    @property
    def byte_lengths(self) -> Any:
        """(V,) how many bytes of text each id stands for."""


@runtime_checkable
class CountModel(Protocol):
    """Learns by counting, round by round (n-gram counts, Baum-Welch), rather than by gradient."""

    counted: bool  # False where this model is to learn by gradient after all
    rounds: int | None  # how many rounds learning takes; None: as many as asked for, each making it better

    def check_data(self, rows: TokenSequences) -> None:
        """Raises BadSetting where nothing can be learnt from the documents as the model is set; told at a glance."""

    def fit(self, rows: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Learn from the documents, the model changed in place by each round; `done` rounds were taken before."""


IGNORE_INDEX = -100
"""A target that is not scored: padding, or a token that is context only. torch's own convention."""
