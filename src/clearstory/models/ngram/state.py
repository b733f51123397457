"""NGramState: the last tokens of each sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from clearstory.models.batched_state import BatchedState
from clearstory.models.ngram.tables import LastIds


@dataclass(frozen=True)
class NGramState(BatchedState):
    """The State of an n-gram model: the last order − 1 ids of each sequence, −1 where it is shorter."""

    ids: Int[Tensor, "B C"]

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
