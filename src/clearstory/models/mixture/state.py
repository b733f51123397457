"""MixtureState: the state of each expert, and the last tokens of each sequence for the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.models.base import State


@dataclass(frozen=True)
class MixtureState:
    """The State of a mixture: those of its experts, and the last ids of each sequence, −1 where it is shorter.

    An expert with a context has the state of its current window, see `windows.py`.
    """

    experts: tuple[State, ...]
    ids: Int[Tensor, "B R"]
    n_read: tuple[int, ...]  # tokens processed in each sequence

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return list(self.n_read)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        indices = torch.tensor(list(rows), dtype=torch.long, device=self.ids.device)
        experts = tuple(each.select(rows) for each in self.experts)
        return replace(self, experts=experts, ids=self.ids[indices], n_read=tuple(self.n_read[row] for row in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several."""
        experts = tuple(type(group[0]).join(group) for group in zip(*(each.experts for each in states), strict=True))
        ids = torch.cat([each.ids for each in states])
        return cls(experts, ids, tuple(count for each in states for count in each.n_read))

    def detach(self) -> Self:
        """The same state without its gradient history."""
        return replace(self, experts=tuple(each.detach() for each in self.experts))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of each expert's state, the ids, and the number of tokens processed."""
        out = {f"experts.{at}.{name}": each for at, state in enumerate(self.experts)
               for name, each in state.tensors().items()}  # fmt: skip
        return {**out, "ids": self.ids, "n_read": torch.tensor(self.n_read)}
