"""Multi-head attention over a whole batch, over KV caches, and over a source (cross-attention).

softmax(Q Kᵀ / √d + mask) V, many heads in parallel. Vaswani et al. 2017, eq. 1.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models import autograd_functions
from clearstory.models.autograd_functions import Linear, RMSNorm, joined_linear, rotate
from clearstory.models.transformer.batched_cache import BatchedLayer
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.packed_sequences import PackedSequences

Bias = Tensor | list[Tensor] | PackedSequences | None
"""What is added to attention scores before the softmax, -inf where attention is not allowed: (1 | B, 1 | H, T, S) for
the whole batch, or (H, new, kept) for each sequence of a cache. None: nothing. Packed sequences: each token attends to
its own sequence."""

Source = tuple[Tensor, Tensor | None] | list[tuple[Tensor, Tensor]] | BatchedLayer
"""What cross-attention reads: the encoder's hidden states (B, S, W) with the bias of their padding; or, for each
sequence of a cache, one layer's keys and values, (kv_heads, S, head_dim); or those of all sequences in one tensor."""

RotaryAngles = tuple[Tensor, Tensor]
"""Cosines and sines of the positions' angles, from `Rotary.cos_sin`."""

LayerCache = tuple[Tensor, Tensor, Tensor]
"""One sequence's keys and values in one layer, each (kv_heads, kept, head_dim), and the slot at the end of both for the
new tokens, (2, kv_heads, new, head_dim), which attention fills."""

LayerCaches = list[LayerCache] | BatchedLayer
"""One layer's caches of all sequences: one by one, or in one tensor."""


class Attention(nn.Module):
    """Multi-head attention with its projections; heads may share keys and values (grouped queries)."""

    def __init__(self, config: TransformerConfig, causal: bool = True, window: int | None = None) -> None:
        super().__init__()
        c = config
        self.head_dim = c.head_dim
        self.sliding_window = window
        self.causal = causal
        # Kernels divide by √d; another scale is compensated in the query.
        self.scale = 1.0 if c.attention_scale is None else c.attention_scale * c.head_dim**0.5
        self.query = Linear(c.width, c.heads * c.head_dim, bias=c.bias)
        self.key = Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.value = Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.output = Linear(c.heads * c.head_dim, c.width, bias=c.bias)
        offset = c.norm == "rms_unit_offset"
        self.query_norm = RMSNorm(c.head_dim, eps=c.norm_eps, unit_offset=offset) if c.qk_norm else None
        self.key_norm = RMSNorm(c.head_dim, eps=c.norm_eps, unit_offset=offset) if c.qk_norm else None
        self.output_norm: nn.Module | None = None  # set by a block that normalises outputs

    def forward(
        self,
        x: Float[Tensor, "B T W"],
        rotary: RotaryAngles | None,
        caches: LayerCaches | None = None,
        bias: Bias = None,
    ) -> Float[Tensor, "B T W"]:
        """Self-attention of x, (B, T, W); with `caches`, over each sequence's cached keys and values as well."""
        queries, keys, values = joined_linear(x, (self.query, self.key, self.value))
        if rotary is not None and self.query_norm is None:
            # Rotated queries and keys are copies; a view of the values would keep all three for the backward pass.
            values = values.contiguous()
        q, (k, v) = self.query_heads(queries, rotary), self.key_value_heads(keys, values, rotary)
        if isinstance(bias, PackedSequences):
            return self.project_output(bias.attend(self.attend, q, k, v))
        if isinstance(caches, BatchedLayer):
            caches.append(k, v)
            return self.project_output(caches.attend(q))
        if caches is None:
            assert not isinstance(bias, list)
            return self.project_output(self.attend(q, k, v, bias))
        assert bias is None or isinstance(bias, list)
        return self.project_output(self.attend_with_cache(q, k, v, caches, bias))

    def attend_from_first(self, x: Float[Tensor, "1 N W"], packed: PackedSequences) -> Float[Tensor, "1 B W"]:
        """Self-attention of the first token of each packed sequence, (1, B, W). Not with rotary positions."""
        keys, values = joined_linear(x, (self.key, self.value))
        q = self.queries(x.index_select(1, packed.starts), None)
        return self.project_output(packed.attend(self.attend, q, *self.key_value_heads(keys, values, None)))

    def cross_attend(self, x: Float[Tensor, "B T W"], source: Source) -> Float[Tensor, "B T W"]:
        """Cross-attention, (B, T, W): queries from x, keys and values from the source."""
        q = self.queries(x, None)
        if isinstance(source, BatchedLayer):
            return self.project_output(source.attend(q))
        if isinstance(source, list):
            pairs = zip(q.unbind(), source, strict=True)
            return self.project_output(
                torch.stack([attend_unmasked(one, keys, values) for one, (keys, values) in pairs])
            )
        hidden, bias = source
        return self.project_output(self.attend(q, *self.keys_and_values(hidden, None), bias))

    def queries(self, x: Tensor, rotary: RotaryAngles | None) -> Float[Tensor, "B H T D"]:
        """Queries of every head, (B, H, T, D)."""
        return self.query_heads(self.query(x), rotary)

    def query_heads(self, projected: Tensor, rotary: RotaryAngles | None) -> Float[Tensor, "B H T D"]:
        """Queries of every head, (B, H, T, D), from the query layer's output, (B, T, H · D)."""
        # -1, not heads: under tensor parallelism each rank holds only its share.
        q = torch.unflatten(projected, -1, (-1, self.head_dim))
        if self.query_norm is not None:
            q = self.query_norm(q)
        if rotary is not None:
            q = rotate(q, rotary)
        scaled: Tensor = q if self.scale == 1.0 else q * self.scale
        return scaled.transpose(1, 2)

    def keys_and_values(
        self, x: Tensor, rotary: RotaryAngles | None
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """Keys and values of every key-value head, each (B, kv_heads, T, D)."""
        return self.key_value_heads(self.key(x), self.value(x), rotary)

    def key_value_heads(self, keys: Tensor, values: Tensor, rotary: RotaryAngles | None) -> tuple[Tensor, Tensor]:
        """Keys and values of every key-value head, each (B, kv_heads, T, D), from their layers' outputs."""
        k = torch.unflatten(keys, -1, (-1, self.head_dim))
        v = torch.unflatten(values, -1, (-1, self.head_dim))
        if self.key_norm is not None:
            k = self.key_norm(k)
        if rotary is not None:
            k = rotate(k, rotary)
        return k.transpose(1, 2), v.transpose(1, 2)

    def project_output(self, head_outputs: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T W"]:
        """Concatenated head outputs projected to the model width, (B, T, W)."""
        out: Tensor = self.output(head_outputs.transpose(1, 2).flatten(-2))
        return out if self.output_norm is None else cast(Tensor, self.output_norm(out))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Head outputs of a whole batch without a cache, as in training, (B, heads, T, head_dim)."""
        count, window = q.shape[-2], self.sliding_window
        cut = self.causal and (bias is not None or (window is not None and count > window))
        explicit = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        mask = bias
        if self.causal and (cut or explicit):
            visible = causal_mask(count, count, window, q.device)
            mask = torch.zeros_like(visible, dtype=q.dtype).masked_fill_(~visible, -torch.inf)
            mask = mask if bias is None else bias.to(q.dtype) + mask
        if explicit:
            shared = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            mask = q.new_zeros(count, k.shape[-2]) if mask is None else mask.to(q.dtype)
            return autograd_functions.attend(q, k, v, mask)
        # A mask keeps the fused kernel off its fast path, so it is built only where a window cuts or a bias is added.
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask is None else mask.to(q.dtype),
            is_causal=self.causal and mask is None,
            enable_gqa=k.shape[1] != q.shape[1],
        )

    def attend_with_cache(
        self, q: Tensor, k: Tensor, v: Tensor, caches: list[LayerCache], bias: list[Tensor] | None = None
    ) -> Tensor:
        """Head outputs of new tokens over each sequence's cache, (B, heads, T, head_dim); fills the caches' slots.

        One sequence at a time on a CPU: reading caches in place is faster than copying them into one batch (21 ms
        against 36 for 8 sequences of GPT-2 on two cores).
        """
        count = q.shape[2]
        for new_kv, (_, _, slot) in zip(torch.stack((k, v), 1).unbind(), caches, strict=True):
            # A sequence shorter than the batch is padded on the right; its padding is not cached.
            slot.copy_(new_kv[:, :, : slot.shape[2]])
        separate = bias is not None or len(caches) == 1 or q.device.type == "cpu"
        if count == 1 and separate and bias is None and all(slot.shape[2] == 1 for _, _, slot in caches):
            return attend_single_token(q, caches, self.sliding_window)
        if not separate:
            return attend_batched(q, caches, self.sliding_window)
        out = torch.zeros_like(q)
        for i, (keys, values, slot) in enumerate(caches):
            new = slot.shape[2]
            if new:
                own = None if bias is None else bias[i]
                out[i, :, :new] = attend_sequence(q[i, :, :new], keys, values, self.sliding_window, own)
        return out


def attend_single_token(q: Tensor, caches: list[LayerCache], window: int | None) -> Tensor:
    """Head outputs of one token of each sequence over its cache, (B, heads, 1, D).

    No mask is needed, so heads that share a key take the place of the query positions; the plain formula then takes a
    quarter of the time of PyTorch's kernel for one row.
    """
    shared = (q * q.shape[-1] ** -0.5).squeeze(2).unflatten(1, (caches[0][0].shape[0], -1))
    outputs = []
    for query, (keys, values, _) in zip(shared.unbind(), caches, strict=True):
        if window is not None and keys.shape[1] > window:
            keys, values = keys[:, -window:], values[:, -window:]
        outputs.append(torch.bmm(torch.bmm(query, keys.mT).softmax(-1), values))
    return torch.stack(outputs).flatten(1, 2).unsqueeze(2)


def attend_sequence(q: Tensor, keys: Tensor, values: Tensor, window: int | None, bias: Tensor | None = None) -> Tensor:
    """Head outputs of one sequence's last tokens over its cache: (heads, new, D) over (kv_heads, kept, D)."""
    new, kept = q.shape[1], keys.shape[1]
    whole = new == kept and bias is None and (window is None or kept <= window)
    mask = None if whole else causal_mask(new, kept, window, q.device)
    if bias is not None and mask is not None:
        mask = bias.to(q.dtype).masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(
        q.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=mask,
        is_causal=whole,
        enable_gqa=keys.shape[0] != q.shape[0],
    ).squeeze(0)


def attend_unmasked(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Head outputs of one sequence's tokens over all keys: (heads, new, D) over (kv_heads, S, D)."""
    return F.scaled_dot_product_attention(
        q.unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0), enable_gqa=keys.shape[0] != q.shape[0]
    ).squeeze(0)


def attend_batched(q: Tensor, caches: list[LayerCache], window: int | None) -> Tensor:
    """Head outputs of all sequences' last tokens at once, (B, heads, T, D), over caches copied into one batch: on a GPU
    copying takes less time than launching a kernel for each sequence.
    """
    kept, new = [keys.shape[1] for keys, _, _ in caches], [slot.shape[2] for _, _, slot in caches]
    if not max(kept):
        return torch.zeros_like(q)
    ends, n_new = torch.tensor([kept, new], device=q.device)
    positions = torch.arange(max(kept), device=q.device)
    own = (ends - n_new)[:, None] + torch.arange(q.shape[2], device=q.device)
    visible = positions <= own[..., None]
    if window is not None:
        visible &= positions > own[..., None] - window
    # Past the end of a shorter cache lies another sequence's, which the mask hides.
    at = ((ends.cumsum(0) - ends)[:, None] + positions).clamp(max=sum(kept) - 1)
    keys, values = (torch.cat([cache[part] for cache in caches], 1)[:, at].transpose(0, 1) for part in (0, 1))
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=visible.unsqueeze(1), enable_gqa=keys.shape[1] != q.shape[1]
    )


def causal_mask(new: int, kept: int, window: int | None, device: torch.device) -> Bool[Tensor, "new kept"]:
    """Which of `kept` tokens each of the last `new` may attend to: itself and those before it, within the window."""
    positions = torch.arange(kept, device=device)
    own = positions[kept - new :, None]
    visible = positions <= own
    return visible if window is None else visible & (positions > own - window)
