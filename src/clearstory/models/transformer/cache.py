"""Cache: the keys and values a Transformer has already computed, one growing buffer for each row.

A row's buffer is only ever written past its end. A `RowCache` is a buffer and a length, so an old one stays true
while a newer one grows in the same buffer; whoever reads on from an old one copies first. States are therefore
values: nothing is spent, and sharing a prompt between a hundred continuations costs nothing until they part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


class KVBuffer:
    """Room for the keys and values of one row in every layer: (layers, 2, kv_heads, room, head_dim)."""

    def __init__(self, data: Tensor, filled: int) -> None:
        self.data = data
        self.filled = filled


@dataclass(frozen=True)
class RowCache:
    """What one row has read: `length` tokens, of which the last `kept` are in the buffer. `recent` are the last few
    ids, where the model looks up n-grams; `source` the keys and values of the text it looks across at, where there is
    one: (layers, 2, kv_heads, S, head_dim).
    """

    buffer: KVBuffer
    length: int
    kept: int
    recent: tuple[int, ...] = ()
    source: Tensor | None = None

    def grown(self, count: int, window: int | None) -> Self:
        """Room for `count` more tokens, as a new cache; copies when the buffer is full or another grew in it.

        With a window, what no later token can look back on is dropped at each copy.
        """
        room = self.buffer.data.shape[3]
        if self.buffer.filled != self.kept or self.kept + count > room:
            keep = self.kept if window is None else min(self.kept, window - 1)
            data = self.buffer.data
            # Doubling keeps the copies' cost constant per token.
            wider = data.new_empty(*data.shape[:3], max(2 * keep, keep + count, 64), data.shape[4])
            wider[:, :, :, :keep] = data[:, :, :, self.kept - keep : self.kept]
            buffer = KVBuffer(wider, keep + count)
            return replace(self, buffer=buffer, length=self.length + count, kept=keep + count)
        self.buffer.filled += count
        return replace(self, length=self.length + count, kept=self.kept + count)

    def by_layer(self, new: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each layer's keys and values, (kv_heads, kept, head_dim), and the end of both, where `new` tokens go."""
        kept = self.buffer.data[:, :, :, : self.kept]
        # All layers at once: a view for each row and layer would cost more than its arithmetic.
        pairs = kept.flatten(0, 1).unbind()
        return zip(pairs[::2], pairs[1::2], kept[:, :, :, self.kept - new :].unbind(), strict=True)


@dataclass(frozen=True)
class KVCache:
    """The State of a Transformer: a list of rows, each with a cache of its own length."""

    rows: tuple[RowCache, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens each row has read."""
        return [row.length for row in self.rows]

    def select(self, rows: Sequence[int]) -> Self:
        """These rows, in this order; nothing is copied until two continuations part."""
        return replace(self, rows=tuple(self.rows[i] for i in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states in one; lengths may differ."""
        return cls(tuple(row for state in states for row in state.rows))

    def detach(self) -> Self:
        """Caches hold no gradients: itself."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Each row's keys and values as read so far."""
        out: dict[str, Tensor] = {}
        for i, row in enumerate(self.rows):
            out[f"rows.{i}.kept"] = row.buffer.data[:, :, :, : row.kept].contiguous()
            out[f"rows.{i}.length"] = torch.tensor(row.length)
            if row.source is not None:
                out[f"rows.{i}.source"] = row.source.contiguous()
        return out

    @classmethod
    def empty(cls, rows: int, like: Tensor, layers: int, kv_heads: int, head_dim: int) -> Self:
        """Rows that have read nothing, on the device and in the precision of `like`."""
        blank = like.new_empty(layers, 2, kv_heads, 0, head_dim)
        return cls(tuple(RowCache(KVBuffer(blank, 0), 0, 0) for _ in range(rows)))
