"""Batched KV cache: keys and values of several sequences in one tensor, for decoding one token of each at once.

Shapes depend on the number of slots and their capacity, never on the lengths of the sequences: those are numbers in a
tensor. So the operations of a decoding step are the same from token to token, and a GPU can replay them.

Position p of a sequence is at index p mod capacity of its slot. Without a sliding window the capacity grows with the
longest sequence; with one, a capacity of the window suffices, and the slot is a ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_GROWTH = 1024
"""Maximum number of tokens by which a slot grows. Smaller capacities double; doubling larger ones for many sequences
would fill a GPU.
"""


@dataclass(frozen=True)
class BatchedLayer:
    """One layer's keys and values of several sequences, R rows with one query each.

    Args:
        keys: of every row, (R, kv_heads, capacity, head_dim).
        values: the same shape.
        bias: added to attention scores, (R, 1 | kv_heads, 1 | heads of each, capacity); -inf where nothing is visible.
        indices: where each row's new token is written, (R,); None for a source, which is only read.
    """

    keys: Float[Tensor, "R K C D"]
    values: Float[Tensor, "R K C D"]
    bias: Float[Tensor, "R _ _ C"]
    indices: Int[Tensor, "R"] | None = None

    def append(self, k: Float[Tensor, "R K 1 D"], v: Float[Tensor, "R K 1 D"]) -> None:
        """Write the keys and values of each row's new token."""
        assert self.indices is not None, "a source is only read"
        at = self.indices[:, None, None, None].expand(k.shape)
        self.keys.scatter_(2, at, k)
        self.values.scatter_(2, at, v)

    def attend(self, q: Float[Tensor, "R H 1 D"]) -> Float[Tensor, "R H 1 D"]:
        """Head outputs of one query of each row, (R, H, 1, D); heads that share a key are queries of one product."""
        shared = torch.unflatten(q.squeeze(2), 1, (self.keys.shape[1], -1))
        out = F.scaled_dot_product_attention(shared, self.keys, self.values, attn_mask=self.bias)
        return out.flatten(1, 2).unsqueeze(2)


class BatchedKVCache:
    """Keys and values in every layer: (layers, 2, slots, kv_heads, capacity, head_dim), a slot for each sequence.

    Args:
        longest: number of tokens that are attended to at most: the context, or the sliding window.
        capacity: tokens of a slot at first; it doubles as sequences grow.
    """

    def __init__(self, longest: int, capacity: int) -> None:
        # Fused attention kernels want masks in multiples of 16.
        self.limit = round_up(longest, 16)
        self.first_capacity = min(capacity, self.limit)
        self.data = torch.empty(0, 2, 0, 0, 0, 0)

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.data.shape[2]

    @property
    def capacity(self) -> int:
        """Tokens of a slot."""
        return self.data.shape[4]

    def reserve(self, slots: int, length: int, like: Tensor | None = None) -> bool:
        """Make room for this many slots and tokens; whether the storage was replaced.

        `like`: keys and values of a sequence, (layers, 2, kv_heads, kept, head_dim), for the first storage.
        """
        capacity = max(self.capacity, self.first_capacity)
        while capacity < min(length, self.limit):
            capacity = min(capacity + min(capacity, MAX_GROWTH), self.limit)
        slots = max(power_of_two(slots), self.slots)
        if (slots, capacity) == (self.slots, self.capacity):
            return False
        before = self.data
        if before.shape[0] == 0:
            assert like is not None, "an empty cache has no shape yet"
            before = like.unsqueeze(2)[:, :, :0, :, :0]
        with torch.inference_mode(False):  # a tensor that may be written to in any mode
            # Zeros, not uninitialised memory: a hidden value has weight 0, and 0 times infinity is not a number.
            self.data = before.new_zeros(*before.shape[:2], slots, before.shape[3], capacity, before.shape[5])
        # No slot has wrapped around yet: only a cache of its largest capacity does.
        self.data[:, :, : before.shape[2], :, : before.shape[4]] = before
        return True

    def put(self, slot: int, kept: Float[Tensor, "L 2 K S D"], length: int) -> None:
        """Copy the keys and values of the last tokens of a sequence of this length into a slot."""
        kept = kept[:, :, :, max(0, kept.shape[3] - self.capacity) :]
        positions = torch.arange(length - kept.shape[3], length, device=kept.device)
        self.data[:, :, slot].index_copy_(3, positions % self.capacity, kept)

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another."""
        self.data[:, :, target] = self.data[:, :, source]

    def distances(self, positions: Int[Tensor, "R 1"]) -> Int[Tensor, "R C"]:
        """How many tokens before each row's new one, at `positions`, the token at each index is, (R, capacity)."""
        return (positions - torch.arange(self.capacity, device=positions.device)) % self.capacity

    def layers(
        self,
        visible: Bool[Tensor, "R C"],
        bias: Float[Tensor, "R H C"] | None = None,
        positions: Int[Tensor, "R 1"] | None = None,
    ) -> list[BatchedLayer]:
        """The first R slots of each layer, of which `visible` tokens are attended to, with a bias of each head's scores
        if any; new tokens are written at `positions`.
        """
        hidden = torch.zeros(visible.shape, dtype=self.data.dtype, device=visible.device)
        mask = hidden.masked_fill_(~visible, -torch.inf)[:, None, None]
        if bias is not None:
            mask = mask + torch.unflatten(bias.to(mask.dtype), 1, (self.data.shape[3], -1))
        indices = None if positions is None else positions.squeeze(1) % self.capacity
        rows = self.data[:, :, : len(visible)]
        return [BatchedLayer(keys, values, mask, indices) for keys, values in rows.unbind()]


def power_of_two(count: int) -> int:
    """The smallest power of two that is not less.

    >>> [power_of_two(count) for count in (0, 1, 2, 3, 33)]
    [1, 1, 2, 4, 64]
    """
    return 1 << max(0, count - 1).bit_length()


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is not less."""
    return -(-count // multiple) * multiple
