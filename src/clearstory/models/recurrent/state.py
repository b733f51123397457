"""Memory: what a recurrent model knows of each row: a vector or two for each layer, however long the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class RecurrentState:
    """The State of a recurrent model: (B, units) for each layer; an LSTM has cells beside its hidden vectors."""

    hidden: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    read: tuple[int, ...]  # tokens of each row

    @property
    def lengths(self) -> list[int]:
        """Tokens each row has read."""
        return list(self.read)

    def select(self, rows: Sequence[int]) -> Self:
        """These rows, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        places = torch.tensor(list(rows), dtype=torch.long, device=self.hidden[0].device)
        return replace(
            self,
            hidden=tuple(each[places] for each in self.hidden),
            cells=tuple(each[places] for each in self.cells),
            read=tuple(self.read[row] for row in rows),
        )

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states in one; lengths may differ."""
        return cls(
            tuple(map(torch.cat, zip(*(state.hidden for state in states), strict=True))),
            tuple(map(torch.cat, zip(*(state.cells for state in states), strict=True))),
            tuple(count for state in states for count in state.read),
        )

    def detach(self) -> Self:
        """The same memory without its past: where backpropagation through time is cut off (Williams and Peng 1990)."""
        return replace(
            self, hidden=tuple(each.detach() for each in self.hidden), cells=tuple(each.detach() for each in self.cells)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Each layer's vectors, and how much was read."""
        named = {f"hidden.{layer}": each for layer, each in enumerate(self.hidden)}
        named |= {f"cells.{layer}": each for layer, each in enumerate(self.cells)}
        return {**named, "read": torch.tensor(self.read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The memory that gave these tensors, on the device of this one. Raises KeyError where it is not all there."""
        device = self.hidden[0].device
        return replace(
            self,
            hidden=tuple(tensors[f"hidden.{layer}"].to(device) for layer in range(len(self.hidden))),
            cells=tuple(tensors[f"cells.{layer}"].to(device) for layer in range(len(self.cells))),
            read=tuple(tensors["read"].tolist()),
        )
