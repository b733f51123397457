"""FilteringState: the distribution over the next hidden state, which is all that a hidden Markov model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class FilteringState:
    """The State of a hidden Markov model: P(next hidden state | tokens so far), `next` (B, S)."""

    next: Tensor
    n_read: tuple[int, ...]  # tokens processed in each sequence

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return list(self.n_read)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        indices = torch.tensor(list(rows), dtype=torch.long, device=self.next.device)
        return replace(self, next=self.next[indices], n_read=tuple(self.n_read[row] for row in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""
        return cls(torch.cat([state.next for state in states]), tuple(n for state in states for n in state.n_read))

    def detach(self) -> Self:
        """The same state without its gradient history."""
        return replace(self, next=self.next.detach())

    def tensors(self) -> dict[str, Tensor]:
        """The distributions and the number of tokens processed."""
        return {"next": self.next, "n_read": torch.tensor(self.n_read)}
