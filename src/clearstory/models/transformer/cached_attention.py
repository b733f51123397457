"""Causal attention over the KV caches of a decoder for inference: single tokens, whole sequences, and any others.

Attention of one token of each sequence is a TorchScript function, which has no Python between its operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.matmul.kernels import scripted
from clearstory.models.transformer.attention import causal_mask
from clearstory.models.transformer.cache import RowCache
from clearstory.models.transformer.config import TransformerConfig


class Attend(Protocol):
    """Attention of one forward pass; its computation depends on the caches, not on the layer."""

    def __call__(self, layer: int, heads: Float[Tensor, "N Q D"], /) -> Float[Tensor, "N W"]:
        """Head outputs of all rows side by side, (N, heads · D), from queries, keys and values, (N, Q, D); keys and
        values are cached.
        """


def choose_attention(config: TransformerConfig, rows: Sequence[RowCache], new: Sequence[int], count: int) -> Attend:
    """Attention over caches that were just extended by `new` of `count` tokens."""
    if count == 1 and min(new, default=0) == 1:
        return SingleTokens(config, rows)
    if count <= BLOCK_TOKENS and all(row.length == row.kept == count for row in rows) and min(new, default=0) == count:
        return WholeSequences(config, len(rows), rows)
    return MixedSequences(config, rows, new, count)


class SingleTokens:
    """One token of each sequence over its cache. Keys, values and slots of all layers are views made once."""

    def __init__(self, config: TransformerConfig, rows: Sequence[RowCache]) -> None:
        c = config
        self.heads, self.head_dim = c.heads, c.head_dim
        self.scale = score_scale(c)
        slots = [row.buffer.data[:, :, :, row.kept - 1].unbind() for row in rows]
        # Keys and values that a layer sees, by its window.
        visible = {window: self.visible(rows, window) for window in {c.window(layer) for layer in range(c.layers)}}
        # Layer by layer, of all sequences.
        self.layers = [
            ([each[i] for each in slots], *([each[i] for each in part] for part in visible[c.window(i)]))
            for i in range(c.layers)
        ]

    @staticmethod
    def visible(rows: Sequence[RowCache], window: int | None) -> tuple[list[tuple[Tensor, ...]], ...]:
        """The keys, transposed, and the values of every layer that a new token sees, of all sequences."""
        keys, values = [], []
        for row in rows:
            start = 0 if window is None else max(0, row.kept - window)
            seen = row.buffer.data[:, :, :, start : row.kept]
            keys.append(seen[:, 0].mT.unbind())
            values.append(seen[:, 1].unbind())
        return keys, values

    def __call__(self, layer: int, heads: Float[Tensor, "N Q D"], /) -> Float[Tensor, "N W"]:
        """Head outputs; heads that share a key are the query positions of one product."""
        return self.rotated(layer, heads.flatten(1), None)

    def rotated(self, layer: int, projected: Float[Tensor, "N K"], turns: Tensor | None) -> Float[Tensor, "N W"]:
        """Head outputs from queries, keys and values side by side, after queries and keys are rotated."""
        slots, keys, values = self.layers[layer]
        out: Tensor = scripted(attend_single_tokens)(
            projected, turns, slots, keys, values, self.heads, self.head_dim, self.scale
        )
        return out


def attend_single_tokens(
    projected: Tensor,
    turns: Optional[Tensor],  # noqa: UP045  # TorchScript reads it
    slots: list[Tensor],
    keys: list[Tensor],
    values: list[Tensor],
    heads: int,
    head_dim: int,
    scale: float,
) -> Tensor:
    """Head outputs of one token of each sequence, (N, heads · D), from queries, keys and values side by side, (N, K).

    Pairs (i, i + half) of rotated queries and keys are written side by side: their products are the same. Writes the
    new key and value into each sequence's slot, (2, kv_heads, D). Keys are (kv_heads, D, kept), values (kv_heads, kept,
    D); heads that share a key are the query positions of one product.
    """
    n_keys = (projected.size(1) // head_dim - heads) // 2
    if turns is not None:
        part = projected[:, : (heads + n_keys) * head_dim]
        halves = part.view(projected.size(0), heads + n_keys, 2, head_dim // 2)
        turned = torch.complex(halves[:, :, 0], halves[:, :, 1]).mul_(turns)
        part.copy_(torch.view_as_real(turned).view(part.size(0), -1))
    queries = projected[:, : heads * head_dim].view(-1, n_keys, heads // n_keys, head_dim)
    new = projected[:, heads * head_dim :].view(-1, 2, n_keys, head_dim)
    unused = projected.new_empty([])
    outputs: list[Tensor] = []
    for i in range(len(slots)):
        slots[i].copy_(new[i])
        scores = torch.baddbmm(unused, queries[i], keys[i], beta=0, alpha=scale)
        outputs.append(torch.bmm(torch.softmax(scores, -1), values[i]))
    out = outputs[0] if len(outputs) == 1 else torch.stack(outputs)
    return out.view(projected.size(0), -1)


class WholeSequences:
    """Sequences of one length, from their beginning, without padding; `rows` are their caches, if any."""

    def __init__(self, config: TransformerConfig, batch_size: int, rows: Sequence[RowCache]) -> None:
        self.config, self.batch_size, self.rows = config, batch_size, rows
        self.scale = score_scale(config)

    def __call__(self, layer: int, heads: Float[Tensor, "N Q D"], /) -> Float[Tensor, "N W"]:
        """Head outputs; keys and values are read where they were computed."""
        c = self.config
        batch = heads.view(self.batch_size, -1, *heads.shape[1:]).transpose(1, 2)
        q, k, v = torch.split(batch, [c.heads, c.kv_heads, c.kv_heads], 1)
        for row, keys, values in zip(self.rows, k, v, strict=bool(self.rows)):
            row.buffer.data[layer, 0, :, : row.kept] = keys
            row.buffer.data[layer, 1, :, : row.kept] = values
        count, window = q.shape[2], c.window(layer)
        mask = None
        if window is not None and count > window:
            mask = causal_mask(count, count, window, q.device)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=c.heads != c.kv_heads
        )
        return out.transpose(1, 2).reshape(len(heads), -1)


BLOCK_TOKENS = 32
"""Number of positions whose attention over the preceding tokens is one product; see `MixedSequences`."""


@dataclass(frozen=True)
class QueryBlock:
    """New tokens of one sequence that attend at once.

    Args:
        row: index of the sequence.
        queries: which of its new tokens.
        keys: which tokens of its cache they attend to at most.
        mask: 0 for tokens that a query attends to, else −inf, (heads of one key · n, m); None where each attends to all
            before it.
    """

    row: int
    queries: slice
    keys: slice
    mask: Float[Tensor, "Q m"] | None


class MixedSequences:
    """Sequences of any lengths, one at a time over their caches, in blocks that begin at multiples of BLOCK_TOKENS.

    So the numbers of a token depend on its position and the tokens before it alone: not on other sequences, and not on
    how many tokens of its own are read at once. Heads that share a key are query positions of one product.
    """

    def __init__(self, config: TransformerConfig, rows: Sequence[RowCache], new: Sequence[int], count: int) -> None:
        self.config, self.rows, self.new, self.count = config, rows, new, count
        self.scale = score_scale(config)
        windows = {config.window(layer) for layer in range(config.layers)}
        self.blocks = {window: list(self.query_blocks(window)) for window in windows}

    def query_blocks(self, window: int | None) -> Iterator[QueryBlock]:
        """The blocks of all new tokens for layers with this window."""
        shared = self.config.heads // self.config.kv_heads
        for index, (row, new) in enumerate(zip(self.rows, self.new, strict=True)):
            dropped, first = row.length - row.kept, row.length - new
            while first < row.length:
                end = min(row.length, first - first % BLOCK_TOKENS + BLOCK_TOKENS)
                begin = 0 if window is None else max(0, first - window + 1)
                mask = None
                if first > begin or (window is not None and end > window):
                    visible = causal_mask(end - first, end - begin, window, torch.device("cpu"))
                    mask = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf).repeat(shared, 1)
                queries = slice(first - row.length + new, end - row.length + new)
                yield QueryBlock(index, queries, slice(begin - dropped, end - dropped), mask)
                first = end

    def __call__(self, layer: int, heads: Float[Tensor, "N Q D"], /) -> Float[Tensor, "N W"]:
        """Head outputs; 0 for padding."""
        c = self.config
        batch = heads.view(len(self.rows), self.count, *heads.shape[1:]).transpose(1, 2)
        out = heads.new_zeros(len(self.rows), self.count, c.heads, c.head_dim)
        for row, new, own in zip(self.rows, self.new, batch, strict=True):
            slots = row.buffer.data[layer, :, :, row.kept - new : row.kept]
            slots.copy_(own[c.heads :, :new].reshape(2, c.kv_heads, new, c.head_dim))
        for block in self.blocks[c.window(layer)]:
            keys, values = self.rows[block.row].buffer.data[layer, :, None, :, block.keys]
            q = batch[block.row, None, : c.heads, block.queries]
            if block.mask is None:
                found = F.scaled_dot_product_attention(
                    q, keys, values, is_causal=True, scale=self.scale, enable_gqa=c.heads != c.kv_heads
                )
            else:
                shared = q.reshape(1, c.kv_heads, -1, c.head_dim)
                found = F.scaled_dot_product_attention(
                    shared, keys, values, attn_mask=block.mask, scale=self.scale
                ).view(1, c.heads, -1, c.head_dim)  # fmt: skip
            out[block.row, block.queries] = found[0].transpose(0, 1)
        return out.view(len(heads), -1)


def score_scale(config: TransformerConfig) -> float:
    """Factor of attention scores."""
    return config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
