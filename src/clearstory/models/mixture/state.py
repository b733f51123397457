"""MixtureState: the state of each expert, and the last tokens of each sequence for the cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.models.base import State
from clearstory.models.batched_state import BatchedState


@dataclass(frozen=True)
class MixtureState(BatchedState):
    """The State of a mixture: those of its experts, and the last ids of each sequence, −1 where it is shorter.

    An expert with a context has the state of its current window, see `windows.py`.
    """

    experts: tuple[State, ...]
    ids: Int[Tensor, "B R"]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of each expert's state, the ids, and the number of tokens processed."""
        out = {f"experts.{at}.{name}": each for at, state in enumerate(self.experts)
               for name, each in state.tensors().items()}  # fmt: skip
        return {**out, "ids": self.ids, "n_read": torch.tensor(self.n_read)}
