"""Row-wise Adagrad: for tables of which a batch touches a few rows.

Duchi et al. 2011; one sum for each row as in Naumov et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from clearstory.training.optimizers import Optimizer


class RowAdagrad(Optimizer):
    """row <- row - lr · gradient / √(sum of all its squared gradients so far), for rows with a sparse gradient only.

    What a row costs does not depend on how many rows there are. The step does not depend on the gradient's scale.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__([{"params": params, "lr": lr}])

    @torch.no_grad()
    def step(self) -> None:
        """One update of every row that was touched."""
        for group in self.groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state["sum"] = table.new_zeros(table.shape[0])
                # Uncoalesced on purpose: sorting a million places costs more than adding into them.
                rows, slopes = table.grad._indices()[0], table.grad._values()
                state["sum"].index_add_(0, rows, slopes.square().sum(-1))
                scale = (state["sum"][rows] + 1e-30).rsqrt_()
                table.index_add_(0, rows, slopes * scale.unsqueeze(-1), alpha=-group["lr"])
