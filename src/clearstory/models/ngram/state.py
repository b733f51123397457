"""NGramState: the last tokens of each sequence, which is all that an n-gram model needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.models.ngram.tables import LastIds


@dataclass(frozen=True)
class NGramState:
    """The State of an n-gram model: the last order − 1 ids of each sequence, −1 where it is shorter."""

    ids: Int[Tensor, "B C"]
    n_read: tuple[int, ...]  # tokens processed in each sequence

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return list(self.n_read)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        # A tensor, since indexing with an empty list would ask for floats.
        indices = torch.tensor(list(rows), dtype=torch.long, device=self.ids.device)
        return replace(self, ids=self.ids[indices], n_read=tuple(self.n_read[row] for row in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several."""
        return cls(torch.cat([state.ids for state in states]), tuple(n for state in states for n in state.n_read))

    def detach(self) -> Self:
        """The state itself: ids have no gradients."""
        return self

    def to_last_ids(self) -> LastIds:
        """The ids as NGramTables reads them."""
        return LastIds(self.ids.cpu().numpy())

    def after(self, last: LastIds, new: Sequence[int]) -> Self:
        """The state with these last ids, after `new` more tokens of each sequence."""
        read = tuple(old + more for old, more in zip(self.n_read, new, strict=True))
        return replace(self, ids=torch.from_numpy(last.ids).to(self.ids.device), n_read=read)

    def tensors(self) -> dict[str, Tensor]:
        """The ids and the number of tokens processed."""
        return {"ids": self.ids, "n_read": torch.tensor(self.n_read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that `tensors()` returned these tensors for. Raises KeyError if one is missing."""
        return replace(self, ids=tensors["ids"].to(self.ids.device), n_read=tuple(tensors["n_read"].tolist()))
