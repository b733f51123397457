"""Hashed n-grams: learned tables, indexed by hashes of the last tokens, whose predictions are added to a network's.

For each order n, the last n tokens are hashed to one row r_n of a table. At small vocabularies a row is a vector of
logits; at large ones (`dim`) a short vector, which a matrix P turns into hidden states. With weights w_n that the
network computes from its hidden state h at each position,

    logits = U h + Σ w_n r_n,  or with short vectors  U (h + P Σ w_n r_n).

The rows are also projected into the network's input. All of it is trained by gradient descent; nothing is counted. In
configs the setting is `recall`.

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
    """One table for each order, the weights of the orders, and the projections into the network's input and output.

    Rows are logits of all tokens, or vectors of `dim` numbers where that is not 0.
    """

    def __init__(self, orders: Sequence[int], rows: int, vocab: int, width: int, dim: int = 0) -> None:
        super().__init__()
        self.orders = tuple(orders)
        self.rows = rows
        self.row_size = dim or vocab
        # Sparse: a batch touches a few thousand of a million rows, and only they are updated.
        # Given its zeros: drawing seventy million random numbers first takes a second.
        self.table = nn.Embedding(
            len(self.orders) * rows,
            self.row_size,
            sparse=True,
            _weight=torch.zeros(len(self.orders) * rows, self.row_size),
        )
        self.order_weights = Linear(width, len(self.orders))
        self.input_projection = Linear(len(self.orders) * self.row_size, width, bias=False)
        self.output_projection = Linear(dim, width, bias=False) if dim else None

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise: tables zero, weights of all orders one."""
        self.table.weight.zero_()
        nn.init.zeros_(self.order_weights.weight)
        nn.init.ones_(self.order_weights.bias)
        nn.init.normal_(self.input_projection.weight, std=0.1)
        if self.output_projection is not None:
            nn.init.normal_(self.output_projection.weight, std=self.row_size**-0.5)

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

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T N R"]:
        """What each order stores for the tokens up to each position, (B, T, orders, R): logits, or shorter vectors."""
        stored: Tensor = self.table(self.hash_rows(ids))
        return stored

    def input_vectors(self, stored: Float[Tensor, "B T N R"], dtype: torch.dtype) -> Float[Tensor, "B T W"]:
        """The stored rows projected to the model width, (B, T, W), to be added to the network's input."""
        projected: Tensor = self.input_projection(stored.flatten(-2).to(dtype))
        # A fifth: this map sums hundreds of elements, and so needs smaller steps than what it is added to.
        return 0.2 * projected

    def weighted_sum(self, stored: Float[Tensor, "B T N R"], hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B T R"]:
        """Sum of the orders' rows, (B, T, R), each weighted as the hidden state decides."""
        weights = self.order_weights(hidden).to(stored.dtype)
        weighted: Tensor = (weights.unsqueeze(-2) @ stored).squeeze(-2)
        return weighted

    def add_to_hidden(self, hidden: Float[Tensor, "B T W"], stored: Float[Tensor, "B T N R"]) -> Float[Tensor, "B T K"]:
        """Hidden states with the orders' predictions: h + P Σ w_n r_n, K = W; or h followed by logits, K = W + V."""
        weighted = self.weighted_sum(stored, hidden)
        if self.output_projection is None:
            return torch.cat([hidden.to(stored.dtype), weighted], -1)
        added: Tensor = hidden + self.output_projection(weighted.to(hidden.dtype))
        return added
