"""Recent: what an n-gram model knows of each row: its last few tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class NGramState:
    """The State of an n-gram model: each row's last order − 1 ids, −1 where it has read fewer."""

    ids: Int[Tensor, "B C"]
    read: tuple[int, ...]  # tokens of each row

    @property
    def lengths(self) -> list[int]:
        """Tokens each row has read."""
        return list(self.read)

    def select(self, rows: Sequence[int]) -> Self:
        """These rows, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        places = torch.tensor(list(rows), dtype=torch.long, device=self.ids.device)
        return replace(self, ids=self.ids[places], read=tuple(self.read[row] for row in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states in one; lengths may differ."""
        return cls(torch.cat([state.ids for state in states]), tuple(n for state in states for n in state.read))

    def detach(self) -> Self:
        """Itself: ids have no gradients."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """The ids, and how much was read."""
        return {"ids": self.ids, "read": torch.tensor(self.read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that gave these tensors. Raises KeyError where it is not all there."""
        return replace(self, ids=tensors["ids"].to(self.ids.device), read=tuple(tensors["read"].tolist()))
