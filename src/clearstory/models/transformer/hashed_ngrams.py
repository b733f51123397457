"""Recall: learnt rows for the last few tokens, found by hashing; what the text did after them last time.

For each order n the last n tokens are hashed to one row of a table. The row is a vector of logits, added to the
network's own with a trust that the network decides for each place, and is shown to the network at its input. All of it
is learnt by gradient; nothing is counted.

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

MIX = 0x9E3779B1, 1_000_003, 0x2545F4914F6CDD1D
"""Odd constants of multiplicative hashing: the golden ratio's (Knuth, TAOCP 6.4), a prime, xorshift*'s (Vigna 2016)."""


class HashedNGrams(nn.Module):
    """One table of logits for each order, trust for each, and the way into the network."""

    def __init__(self, orders: Sequence[int], rows: int, vocab: int, width: int) -> None:
        super().__init__()
        self.orders = tuple(orders)
        self.rows = rows
        # Sparse: a batch touches some thousands of a million rows, and only they are updated.
        # Given its zeros: drawing seventy million numbers first takes a second.
        self.table = nn.Embedding(
            len(self.orders) * rows, vocab, sparse=True, _weight=torch.zeros(len(self.orders) * rows, vocab)
        )
        self.trust = Linear(width, len(self.orders))
        self.into = Linear(len(self.orders) * vocab, width, bias=False)

    @torch.no_grad()
    def reset(self) -> None:
        """At birth the tables say nothing, and what they will say is believed."""
        self.table.weight.zero_()
        nn.init.zeros_(self.trust.weight)
        nn.init.ones_(self.trust.bias)
        nn.init.normal_(self.into.weight, std=0.1)

    def places(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T N"]:
        """Which row of the table each order's last tokens lead to; before the beginning stand zeros."""
        count = ids.shape[1]
        golden, prime, last = MIX
        key = ids + 1
        found: list[Tensor] = []
        for back in range(1, max(self.orders)):
            before = F.pad(ids[:, : max(0, count - back)] + 1, (min(back, count), 0))
            key = key * prime + before * golden
            key = key ^ (key >> 15)
            if back + 1 in self.orders:
                found.append(((key * last) >> 20) % self.rows + len(found) * self.rows)
        return torch.stack(found, -1)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T N V"]:
        """What each order remembers at each place."""
        rows: Tensor = self.table(self.places(ids))
        return rows

    def input_vectors(self, rows: Float[Tensor, "B T N V"], dtype: torch.dtype) -> Float[Tensor, "B T W"]:
        """What the network is shown of it."""
        shown: Tensor = self.into(rows.flatten(-2).to(dtype))
        # A fifth: this map sums hundreds of rows' numbers, and so wants smaller steps than what it adds to.
        return 0.2 * shown

    def logits(self, rows: Float[Tensor, "B T N V"], hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B T V"]:
        """The orders' logits added up, each as far as it is trusted here."""
        trust = self.trust(hidden).to(rows.dtype)
        weighed: Tensor = (trust.unsqueeze(-2) @ rows).squeeze(-2)
        return weighed
