"""Packed sequences: the tokens of a batch concatenated without padding.

Linear layers, norms and activations treat each token alone; only attention has to know where a sequence ends. A batch
of sentences of mixed lengths is a third padding, and a mask keeps the attention kernel off its fast path.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor


class PackedSequences:
    """Positions of the tokens of a padded batch in the concatenation; sequences of equal length are adjacent.

    >>> packed = PackedSequences(torch.tensor([2, 1]), 2)
    >>> row = packed.pack(torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]]))
    >>> row.flatten().tolist(), packed.unpack(row).flatten().tolist()
    ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0, 0.0])
    """

    def __init__(self, lengths: Int[Tensor, "B"], count: int) -> None:
        self.shape = len(lengths), count
        by_length = sorted((length, row) for row, length in enumerate(lengths.tolist()))
        self.groups = [(length, len(list(rows))) for length, rows in groupby(length for length, _ in by_length)]
        self.positions = torch.cat([torch.arange(length) + row * count for length, row in by_length])
        self.order = torch.tensor([row for _, row in by_length])

    def pack(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "1 N W"]:
        """The tokens without the padding."""
        return x.flatten(0, 1).index_select(0, self.positions).unsqueeze(0)

    def unpack(self, x: Float[Tensor, "1 N W"]) -> Float[Tensor, "B T W"]:
        """The padded batch; padding is 0."""
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[-1])
        return torch.unflatten(padded.index_copy(0, self.positions, x.squeeze(0)), 0, self.shape)

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        """The length of each sequence, in the order in which they lie."""
        return torch.tensor([length for length, rows in self.groups for _ in range(rows)])

    @property
    def starts(self) -> Int[Tensor, "B"]:
        """The index of each sequence's first token, in the order in which they lie."""
        lengths = self.lengths
        return lengths.cumsum(0) - lengths

    def in_batch_order(self, x: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        """Vectors of the sequences in the order of the batch, from those in the order in which they lie."""
        return torch.zeros_like(x).index_copy(0, self.order, x)

    def attend(
        self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Float[Tensor, "1 H N D"]:
        """Head outputs by `attend` for the sequences of each length, (B, H, T, D) without padding. Queries are of all
        tokens, or of the first of each sequence.
        """
        sizes = [length * rows for length, rows in self.groups]
        first_only = q.shape[2] != k.shape[2]
        of_queries = [rows for _, rows in self.groups] if first_only else sizes
        outputs = []
        for (_, rows), *parts in zip(
            self.groups,
            *(
                torch.split(x.squeeze(0), each, 1)
                for x, each in zip((q, k, v), (of_queries, sizes, sizes), strict=True)
            ),
            strict=True,
        ):
            out = attend(*(torch.unflatten(part, 1, (rows, -1)).transpose(0, 1) for part in parts))
            outputs.append(out.transpose(0, 1).flatten(1, 2))
        return torch.cat(outputs, 1).unsqueeze(0)
