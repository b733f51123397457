"""Block: attend, look across, think; add each to the residual stream. The one Transformer block of the house.

Vaswani et al. 2017, section 3; the norm before each step as Radford et al. 2019 have it, or after.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models import autograd_functions
from clearstory.models.autograd_functions import LayerNorm, Linear, RMSNorm, gelu_tanh, rotate
from clearstory.models.transformer.config import TransformerConfig

Bias = Tensor | list[Tensor] | None
"""What is added to scores before the softmax, -inf where nobody may look: (1 | B, 1 | H, T, S) for all rows together,
or (H, new, kept) for each row of a cache. None: nothing, and every token looks where its stack lets it."""

Source = tuple[Tensor, Tensor | None] | list[tuple[Tensor, Tensor]]
"""What a decoder looks across at: vectors (B, S, W) with the bias of their padding; or, of each row of a cache, one
layer's keys and values, (kv_heads, S, head_dim)."""

RotaryAngles = tuple[Tensor, Tensor]
"""Cosines and sines of the tokens' places, from `Rotary.cos_sin`."""

LayerCache = tuple[Tensor, Tensor, Tensor]
"""One row's keys and values in one layer, each (kv_heads, kept, head_dim), and the end of both, (2, kv_heads, new,
head_dim), which the tokens being read are still to fill."""


def make_norm(config: TransformerConfig, width: int) -> nn.Module:
    """The norm this config asks for."""
    if config.norm == "rms":
        return RMSNorm(width, eps=config.norm_eps)
    return LayerNorm(width, eps=config.norm_eps, bias=config.bias)


class Attention(nn.Module):
    """Each token asks (query), those it may see answer (key), and the answers' values are added up.

    softmax(Q Kᵀ / √d + mask) V, many heads side by side. Vaswani et al. 2017, eq. 1.
    """

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__()
        c = config
        self.head_dim = c.head_dim
        self.sliding_window = c.sliding_window
        self.causal = causal
        # Kernels divide by √d; another scale is made up for in the query.
        self.scale = 1.0 if c.attention_scale is None else c.attention_scale * c.head_dim**0.5
        self.query = Linear(c.width, c.heads * c.head_dim, bias=c.bias)
        self.key = Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.value = Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.output = Linear(c.heads * c.head_dim, c.width, bias=c.bias)
        self.query_norm = RMSNorm(c.head_dim, eps=c.norm_eps) if c.qk_norm else None
        self.key_norm = RMSNorm(c.head_dim, eps=c.norm_eps) if c.qk_norm else None

    def forward(
        self,
        x: Float[Tensor, "B T W"],
        turn: RotaryAngles | None,
        past: list[LayerCache] | None = None,
        bias: Bias = None,
    ) -> Float[Tensor, "B T W"]:
        """What attention adds to each token, over itself and those before it; over all, if not causal."""
        q, (k, v) = self.queries(x, turn), self.keys_and_values(x, turn)
        if past is None:
            assert not isinstance(bias, list)
            return self.project_output(self.attend(q, k, v, bias))
        assert bias is None or isinstance(bias, list)
        return self.project_output(self.attend_with_cache(q, k, v, past, bias))

    def cross_attend(self, x: Float[Tensor, "B T W"], source: Source) -> Float[Tensor, "B T W"]:
        """What attention adds to each token over another text: queries of one, keys and values of the other."""
        q = self.queries(x, None)
        if isinstance(source, list):
            rows = zip(q.unbind(), source, strict=True)
            return self.project_output(torch.stack([attend_all(one, keys, values) for one, (keys, values) in rows]))
        vectors, bias = source
        return self.project_output(self.attend(q, *self.keys_and_values(vectors, None), bias))

    def queries(self, x: Tensor, turn: RotaryAngles | None) -> Float[Tensor, "B H T D"]:
        """What each head asks for."""
        # -1, not heads: under tensor parallelism each rank holds only its share.
        q = self.query(x).unflatten(-1, (-1, self.head_dim))
        if self.query_norm is not None:
            q = self.query_norm(q)
        if turn is not None:
            q = rotate(q, turn)
        scaled: Tensor = q if self.scale == 1.0 else q * self.scale
        return scaled.transpose(1, 2)

    def keys_and_values(
        self, x: Tensor, turn: RotaryAngles | None
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """What each head answers to, and with what."""
        k = self.key(x).unflatten(-1, (-1, self.head_dim))
        v = self.value(x).unflatten(-1, (-1, self.head_dim))
        if self.key_norm is not None:
            k = self.key_norm(k)
        if turn is not None:
            k = rotate(k, turn)
        return k.transpose(1, 2), v.transpose(1, 2)

    def project_output(self, answer: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T W"]:
        """All heads' answers, mixed into what is added to the stream."""
        out: Tensor = self.output(answer.transpose(1, 2).flatten(-2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """All tokens at once, none before them: the way training reads. (B, heads, T, head_dim)."""
        count = q.shape[-2]
        cut = self.causal and (bias is not None or (self.sliding_window is not None and count > self.sliding_window))
        by_hand = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        mask = bias
        if self.causal and (cut or by_hand):
            seen = causal_mask(count, count, self.sliding_window, q.device)
            mask = torch.zeros_like(seen, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
            mask = mask if bias is None else bias.to(q.dtype) + mask
        if by_hand:
            shared = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            return autograd_functions.attend(
                q, k, v, q.new_zeros(count, k.shape[-2]) if mask is None else mask.to(q.dtype)
            )
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
        self, q: Tensor, k: Tensor, v: Tensor, past: list[LayerCache], bias: list[Tensor] | None = None
    ) -> Tensor:
        """Row by row over each row's own cache. Reading caches where they lie beats copying them into one batch:
        21 ms against 36 for 8 rows of GPT-2 on two cores.
        """
        count = q.shape[2]
        for fresh, (_, _, room) in zip(torch.stack((k, v), 1).unbind(), past, strict=True):
            # A row shorter than the batch is padded on the right; its padding is neither kept nor answered.
            room.copy_(fresh[:, :, : room.shape[2]])
        alone = bias is not None or len(past) == 1 or q.device.type == "cpu"
        if count == 1 and alone and bias is None and all(room.shape[2] == 1 for _, _, room in past):
            return attend_one(q, past, self.sliding_window)
        if not alone:
            return attend_together(q, past, self.sliding_window)
        out = torch.zeros_like(q)
        for i, (keys, values, room) in enumerate(past):
            new = room.shape[2]
            if new:
                own = None if bias is None else bias[i]
                out[i, :, :new] = attend_row(q[i, :, :new], keys, values, self.sliding_window, own)
        return out


def attend_one(q: Tensor, past: list[LayerCache], window: int | None) -> Tensor:
    """One token of each row, (B, heads, 1, D), over all its row has kept. It needs no mask, so heads that share a key
    stand where its queries' places would, and the plain formula takes a quarter of the time of torch's own for one row.
    """
    shared = (q * q.shape[-1] ** -0.5).squeeze(2).unflatten(1, (past[0][0].shape[0], -1))
    answers = []
    for query, (keys, values, _) in zip(shared.unbind(), past, strict=True):
        if window is not None and keys.shape[1] > window:
            keys, values = keys[:, -window:], values[:, -window:]
        answers.append(torch.bmm(torch.bmm(query, keys.mT).softmax(-1), values))
    return torch.stack(answers).flatten(1, 2).unsqueeze(2)


def attend_row(q: Tensor, keys: Tensor, values: Tensor, window: int | None, bias: Tensor | None = None) -> Tensor:
    """The last tokens of one row over all it has kept: (heads, new, D) over (kv_heads, kept, D)."""
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


def attend_all(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One row's tokens over every key there is: (heads, new, D) over (kv_heads, S, D)."""
    return F.scaled_dot_product_attention(
        q.unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0), enable_gqa=keys.shape[0] != q.shape[0]
    ).squeeze(0)


def attend_together(q: Tensor, past: list[LayerCache], window: int | None) -> Tensor:
    """The last tokens of all rows at once, (B, heads, T, D), over caches copied side by side: a GPU has copied them
    before it could be asked row by row.
    """
    kept, new = [keys.shape[1] for keys, _, _ in past], [room.shape[2] for _, _, room in past]
    if not max(kept):
        return torch.zeros_like(q)
    ends, fresh = torch.tensor([kept, new], device=q.device)
    places = torch.arange(max(kept), device=q.device)
    own = (ends - fresh)[:, None] + torch.arange(q.shape[2], device=q.device)
    seen = places <= own[..., None]
    if window is not None:
        seen &= places > own[..., None] - window
    # Behind a shorter row's end stands what is another's, which none of its tokens sees.
    at = ((ends.cumsum(0) - ends)[:, None] + places).clamp(max=sum(kept) - 1)
    keys, values = (torch.cat([row[part] for row in past], 1)[:, at].transpose(0, 1) for part in (0, 1))
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=seen.unsqueeze(1), enable_gqa=keys.shape[1] != q.shape[1]
    )


def causal_mask(new: int, kept: int, window: int | None, device: torch.device) -> Tensor:
    """Which of `kept` tokens each of the last `new` may see: itself and those before it, within the window."""
    places = torch.arange(kept, device=device)
    own = places[kept - new :, None]
    seen = places <= own
    return seen if window is None else seen & (places > own - window)


class FeedForward(nn.Module):
    """Thinks about each token by itself. Gated: down(bend(gate x) · up x), Shazeer 2020; else down(bend(up x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.gate = Linear(c.width, c.intermediate_size, bias=c.bias) if c.gated else None
        self.up = Linear(c.width, c.intermediate_size, bias=c.bias)
        self.down = Linear(c.intermediate_size, c.width, bias=c.bias)
        self.activation = ACTIVATIONS[c.activation]

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """What thinking adds to each token."""
        if self.gate is None:
            return self.down(self.activation(self.up(x)))  # type: ignore[no-any-return]  # nn.Module returns Any
        return self.down(self.activation(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]  # the same


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


class Block(nn.Module):
    """Attend, look across if there is somewhere to look, think; add each to the residual stream."""

    def __init__(self, config: TransformerConfig, causal: bool = True, cross: bool = False) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config, causal)
        self.cross_attention_norm = make_norm(config, config.width) if cross else None
        self.cross_attention = Attention(config, causal=False) if cross else None
        self.feed_forward_norm = make_norm(config, config.width)
        self.feed_forward = FeedForward(config)
        self.norm_first = config.norm_first
        self.dropout = config.dropout

    def forward(
        self,
        x: Float[Tensor, "B T W"],
        turn: RotaryAngles | None,
        past: list[LayerCache] | None = None,
        bias: Bias = None,
        source: Source | None = None,
    ) -> Float[Tensor, "B T W"]:
        """The residual stream after this block."""
        x = self.residual(x, self.attention_norm, lambda y: self.attention(y, turn, past, bias))
        if self.cross_attention is not None and self.cross_attention_norm is not None and source is not None:
            look = self.cross_attention.cross_attend
            x = self.residual(x, self.cross_attention_norm, lambda y: look(y, source))
        return self.residual(x, self.feed_forward_norm, self.feed_forward)

    def project_source(self, source: Float[Tensor, "B S W"]) -> Float[Tensor, "B 2 H S D"]:
        """Keys and values of a source, computed once for all that will be written."""
        assert self.cross_attention is not None, "only a decoder beside an encoder looks across"
        return torch.stack(self.cross_attention.keys_and_values(source, None), 1)

    def residual(self, x: Tensor, norm: nn.Module, step: Callable[[Tensor], Tensor]) -> Tensor:
        """x + step(norm(x)), or norm(x + step(x)): the one place that knows the order of norm and step."""
        if self.norm_first:
            return x + F.dropout(step(norm(x)), self.dropout, self.training)
        out: Tensor = norm(x + F.dropout(step(x), self.dropout, self.training))
        return out
