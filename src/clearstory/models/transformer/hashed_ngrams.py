"""Hashed n-grams: learned tables of next-token logits beside a network, looked up by hashing the last few tokens.

For each order n, the last n tokens are hashed to one row of a table. The row is a vector of logits. The logits are
added to the network's own, weighted by a weight that the network computes at each position, and are fed to the network
as part of its input. All of it is trained by gradient descent; nothing is counted. In configs the setting is `recall`.

Sources: hashed n-gram features of a maximum-entropy model beside a network (Mikolov et al. 2011, "RNNME"); mixing
orders by weights that the context chooses (Mahoney 2005, PAQ); hashed n-grams at the input (Clark et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.autograd_functions import Linear

HASH_CONSTANTS = 0x9E3779B1, 1_000_003, 0x2545F4914F6CDD1D
"""Odd constants of multiplicative hashing: the golden ratio's (Knuth, TAOCP 6.4), a prime, xorshift*'s (Vigna 2016)."""


class HashedNGrams(nn.Module):
    """One table of logits for each order, the weights of the orders, and the projection into the network's input."""

    def __init__(self, orders: Sequence[int], rows: int, vocab: int, width: int) -> None:
        super().__init__()
        self.orders = tuple(orders)
        self.rows = rows
        # Sparse: a batch touches a few thousand of a million rows, and only they are updated.
        # Given its zeros: drawing seventy million random numbers first takes a second.
        self.table = nn.Embedding(
            len(self.orders) * rows, vocab, sparse=True, _weight=torch.zeros(len(self.orders) * rows, vocab)
        )
        self.order_weights = Linear(width, len(self.orders))
        self.input_projection = Linear(len(self.orders) * vocab, width, bias=False)

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise: tables zero, weights of all orders one."""
        self.table.weight.zero_()
        nn.init.zeros_(self.order_weights.weight)
        nn.init.ones_(self.order_weights.bias)
        nn.init.normal_(self.input_projection.weight, std=0.1)

    def hash_rows(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T N"]:
        """Table row of each order's last tokens at each position, (B, T, orders); zeros precede the sequence."""
        count = ids.shape[1]
        golden, prime, last = HASH_CONSTANTS
        key = ids + 1
        rows: list[Tensor] = []
        for back in range(1, max(self.orders)):
            before = F.pad(ids[:, : max(0, count - back)] + 1, (min(back, count), 0))
            key = key * prime + before * golden
            key = key ^ (key >> 15)
            if back + 1 in self.orders:
                rows.append(((key * last) >> 20) % self.rows + len(rows) * self.rows)
        return torch.stack(rows, -1)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T N V"]:
        """Logits that each order stores for the tokens up to each position, (B, T, orders, V)."""
        stored: Tensor = self.table(self.hash_rows(ids))
        return stored

    def input_vectors(self, stored: Float[Tensor, "B T N V"], dtype: torch.dtype) -> Float[Tensor, "B T W"]:
        """The stored logits projected to the model width, (B, T, W), to be added to the network's input."""
        projected: Tensor = self.input_projection(stored.flatten(-2).to(dtype))
        # A fifth: this map sums hundreds of elements, and so needs smaller steps than what it is added to.
        return 0.2 * projected

    def logits(self, stored: Float[Tensor, "B T N V"], hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B T V"]:
        """Sum of the orders' logits, (B, T, V), each weighted as the hidden state decides."""
        weights = self.order_weights(hidden).to(stored.dtype)
        weighted: Tensor = (weights.unsqueeze(-2) @ stored).squeeze(-2)
        return weighted
