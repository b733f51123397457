"""Belief: how likely each state is to speak next, for each row; all that a hidden Markov model remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class FilteringState:
    """The State of a hidden Markov model: `next` (B, S) sums to one in each row."""

    next: Tensor
    read: tuple[int, ...]  # tokens of each row

    @property
    def lengths(self) -> list[int]:
        """Tokens each row has read."""
        return list(self.read)

    def select(self, rows: Sequence[int]) -> Self:
        """These rows, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        places = torch.tensor(list(rows), dtype=torch.long, device=self.next.device)
        return replace(self, next=self.next[places], read=tuple(self.read[row] for row in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states in one; lengths may differ."""
        return cls(torch.cat([state.next for state in states]), tuple(n for state in states for n in state.read))

    def detach(self) -> Self:
        """The same belief without its past."""
        return replace(self, next=self.next.detach())

    def tensors(self) -> dict[str, Tensor]:
        """The belief, and how much was read."""
        return {"next": self.next, "read": torch.tensor(self.read)}
