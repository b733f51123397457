"""SSRU, the simpler simple recurrent unit: a decoder's recurrence in place of self-attention. Kim et al. 2019.

"From Research to Production and Back: Ludicrously Fast Neural Machine Translation", section 3.2:

    f_t = σ(W_f x_t + b_f)        c_t = f_t c_{t-1} + (1 − f_t) W x_t        output = relu(c_t)

A step costs two products, however long the text, and the state is one vector per layer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.autograd_functions import Linear
from clearstory.models.transformer.config import TransformerConfig

LayerCell = tuple[Tensor, int]
"""One sequence's cell in one layer, (W,), and its number of new tokens: it is read, then overwritten by the cell after
them."""


class SSRU(nn.Module):
    """The recurrence of a decoder block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input = Linear(config.width, config.width, bias=False)
        self.forget = Linear(config.width, config.width, bias=True)

    def forward(self, x: Float[Tensor, "B T W"], cells: list[LayerCell] | None = None) -> Float[Tensor, "B T W"]:
        """The output for x, (B, T, W): from a cell of zeros, or continuing each sequence's cell."""
        forget = torch.sigmoid(self.forget(x))
        added = (1 - forget) * self.input(x)
        if cells is None:
            return torch.relu(scan(forget, added))
        before = torch.stack([cell for cell, _ in cells]).unsqueeze(1)
        every = scan(torch.cat([torch.zeros_like(before), forget], 1), torch.cat([before, added], 1))
        for (cell, new), own in zip(cells, every.unbind(), strict=True):
            cell.copy_(own[new])  # padding on the right is left out
        return torch.relu(every[:, 1:])


def scan(forget: Float[Tensor, "B T W"], added: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
    """All c_t = forget_t c_{t-1} + added_t from c_0 = 0, in log2 T steps: each doubles the number of tokens summed
    (Hillis and Steele 1986). What comes after a token does not change its value.

    >>> scan(torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    distance = 1
    while distance < added.shape[1]:
        reached = added[:, distance:] + forget[:, distance:] * added[:, :-distance]
        added = torch.cat([added[:, :distance], reached], 1)
        forget = torch.cat([forget[:, :distance], forget[:, distance:] * forget[:, :-distance]], 1)
        distance *= 2
    return added
