"""RecurrentState: a vector or two for each layer of each sequence, of constant size however long the sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class RecurrentState:
    """The State of a recurrent model: hidden states (B, units) of each layer, and cell states of an LSTM."""

    hidden: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    n_read: tuple[int, ...]  # tokens processed in each sequence

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return list(self.n_read)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        indices = torch.tensor(list(rows), dtype=torch.long, device=self.hidden[0].device)
        return replace(
            self,
            hidden=tuple(each[indices] for each in self.hidden),
            cells=tuple(each[indices] for each in self.cells),
            n_read=tuple(self.n_read[row] for row in rows),
        )

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""
        return cls(
            tuple(map(torch.cat, zip(*(state.hidden for state in states), strict=True))),
            tuple(map(torch.cat, zip(*(state.cells for state in states), strict=True))),
            tuple(count for state in states for count in state.n_read),
        )

    def detach(self) -> Self:
        """The same state without its gradient history: truncated backpropagation through time."""
        return replace(
            self, hidden=tuple(each.detach() for each in self.hidden), cells=tuple(each.detach() for each in self.cells)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Each layer's vectors, and the number of tokens processed."""
        named = {f"hidden.{layer}": each for layer, each in enumerate(self.hidden)}
        named |= {f"cells.{layer}": each for layer, each in enumerate(self.cells)}
        return {**named, "n_read": torch.tensor(self.n_read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that `tensors()` returned these tensors for, on this one's device. Raises KeyError if one is
        missing.
        """
        device = self.hidden[0].device
        return replace(
            self,
            hidden=tuple(tensors[f"hidden.{layer}"].to(device) for layer in range(len(self.hidden))),
            cells=tuple(tensors[f"cells.{layer}"].to(device) for layer in range(len(self.cells))),
            n_read=tuple(tensors["n_read"].tolist()),
        )
