"""KV cache: the keys and values of past tokens, one growing buffer per sequence.

A sequence's buffer is only ever written past its end. A `RowCache` is a buffer and a length, so an old one stays valid
while a newer one grows in the same buffer; whoever continues an old one copies first. States are therefore values, and
sharing a prompt between a hundred continuations costs nothing until they part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from clearstory.models.device import ask_for_huge_pages
from clearstory.models.transformer.ssru import LayerCell


class KVBuffer:
    """Storage for one sequence's keys and values in every layer: (layers, 2, kv_heads, capacity, head_dim)."""

    def __init__(self, data: Tensor, filled: int) -> None:
        self.data = data
        self.filled = filled


@dataclass(frozen=True)
class RowCache:
    """The cache of one sequence.

    Args:
        buffer: its keys and values.
        length: tokens processed.
        kept: tokens in the buffer: the last ones, all of them without a sliding window.
        recent_ids: the last few ids, where the model looks up hashed n-grams.
        source: cross-attention keys and values of its source, (layers, 2, kv_heads, S, head_dim), where it has one.
        cells: of an SSRU, (layers, W), in place of keys and values.
    """

    buffer: KVBuffer
    length: int
    kept: int
    recent_ids: tuple[int, ...] = ()
    source: Tensor | None = None
    cells: Tensor | None = None

    def extended(self, count: int, window: int | None) -> Self:
        """A cache with slots for `count` more tokens; copies when the buffer is full or another cache grew in it.

        With a sliding window, what no later token attends to is dropped at each copy.
        """
        if self.cells is not None:
            return replace(self, length=self.length + count, cells=self.cells.clone())
        capacity = self.buffer.data.shape[3]
        if self.buffer.filled != self.kept or self.kept + count > capacity:
            keep = self.kept if window is None else min(self.kept, window - 1)
            data = self.buffer.data
            # Doubling keeps the copies' cost constant per token; at 4,000 tokens it would hold as many empty slots (180
            # MB of SmolLM2-135M), so at most 512 are added.
            needed = keep + count
            wider = data.new_empty(*data.shape[:3], needed + min(max(needed, 192), 512), data.shape[4])
            ask_for_huge_pages(wider)  # it is read at each token
            wider[:, :, :, :keep] = data[:, :, :, self.kept - keep : self.kept]
            buffer = KVBuffer(wider, keep + count)
            return replace(self, buffer=buffer, length=self.length + count, kept=keep + count)
        self.buffer.filled += count
        return replace(self, length=self.length + count, kept=self.kept + count)

    def by_layer(self, new: int) -> Iterator[tuple[Tensor, Tensor, Tensor]] | Iterator[LayerCell]:
        """Each layer's keys and values, (kv_heads, kept, head_dim), and the slot at their end for `new` tokens; or its
        cell, which is replaced by that after `new` tokens.
        """
        if self.cells is not None:
            return ((cell, new) for cell in self.cells.unbind())
        kept = self.buffer.data[:, :, :, : self.kept]
        # All layers at once: a view for each sequence and layer would cost more than its computation.
        pairs = kept.flatten(0, 1).unbind()
        return zip(pairs[::2], pairs[1::2], kept[:, :, :, self.kept - new :].unbind(), strict=True)


@dataclass(frozen=True)
class KVCache:
    """The State of a Transformer: one cache for each sequence, of any lengths."""

    rows: tuple[RowCache, ...]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return [row.length for row in self.rows]

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order; nothing is copied until two continuations part."""
        return replace(self, rows=tuple(self.rows[i] for i in rows))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""
        return cls(tuple(row for state in states for row in state.rows))

    def detach(self) -> Self:
        """The state itself: caches hold no gradients."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Each sequence's keys and values, and its length."""
        out: dict[str, Tensor] = {}
        for i, row in enumerate(self.rows):
            out[f"rows.{i}.kept"] = row.buffer.data[:, :, :, : row.kept].contiguous()
            out[f"rows.{i}.length"] = torch.tensor(row.length)
            if row.cells is not None:
                out[f"rows.{i}.cells"] = row.cells
            if row.source is not None:
                out[f"rows.{i}.source"] = row.source.contiguous()
        return out

    @classmethod
    def of_cells(cls, batch_size: int, like: Tensor, layers: int) -> Self:
        """Empty sequences of a model with SSRUs, on the device and in the dtype of `like`, (..., W)."""
        blank = KVBuffer(like.new_empty(0, 2, 1, 0, 1), 0)
        return cls(
            tuple(RowCache(blank, 0, 0, cells=like.new_zeros(layers, like.shape[-1])) for _ in range(batch_size))
        )

    @classmethod
    def empty(cls, batch_size: int, like: Tensor, layers: int, kv_heads: int, head_dim: int) -> Self:
        """Caches of empty sequences, on the device and in the dtype of `like`."""
        blank = like.new_empty(layers, 2, kv_heads, 0, head_dim)
        return cls(tuple(RowCache(KVBuffer(blank, 0), 0, 0) for _ in range(batch_size)))
