"""Block: attend, think; add each to the residual stream. The one Transformer block of the house.

Vaswani et al. 2017, section 3, in the pre-norm order of Radford et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models import arithmetic
from clearstory.models.arithmetic import LayerNorm, Linear, RMSNorm, gelu_tanh, rotate
from clearstory.models.config import TransformerConfig

Turn = tuple[Tensor, Tensor]
"""Cosines and sines of the tokens' places, from `Rotary.at`."""

Past = tuple[Tensor, Tensor, Tensor]
"""One row's keys and values in one layer, each (kv_heads, kept, head_width), and the end of both, (2, kv_heads, new,
head_width), which the tokens being read are still to fill."""


def make_norm(config: TransformerConfig, width: int) -> nn.Module:
    """The norm this config asks for."""
    if config.norm == "rms":
        return RMSNorm(width, eps=config.norm_eps)
    return LayerNorm(width, eps=config.norm_eps, bias=config.bias)


class Attention(nn.Module):
    """Each token asks (query), every token before it answers (key), and the answers' values are added up.

    softmax(Q Kᵀ / √d + mask) V, many heads side by side. Vaswani et al. 2017, eq. 1.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.head_width = c.head_width
        self.window = c.window
        self.query = Linear(c.width, c.heads * c.head_width, bias=c.bias)
        self.key = Linear(c.width, c.kv_heads * c.head_width, bias=c.bias)
        self.value = Linear(c.width, c.kv_heads * c.head_width, bias=c.bias)
        self.output = Linear(c.heads * c.head_width, c.width, bias=c.bias)
        self.query_norm = RMSNorm(c.head_width, eps=c.norm_eps) if c.qk_norm else None
        self.key_norm = RMSNorm(c.head_width, eps=c.norm_eps) if c.qk_norm else None

    def forward(
        self, x: Float[Tensor, "B T W"], turn: Turn | None, past: list[Past] | None = None
    ) -> Float[Tensor, "B T W"]:
        """What attention adds to each token, over itself and those before it."""
        # -1, not heads: under tensor parallelism each rank holds only its share.
        q = self.query(x).unflatten(-1, (-1, self.head_width))
        k = self.key(x).unflatten(-1, (-1, self.head_width))
        v = self.value(x).unflatten(-1, (-1, self.head_width))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, head_width)
        answer = self.attend(q, k, v) if past is None else self.attend_past(q, k, v, past)
        out: Tensor = self.output(answer.transpose(1, 2).flatten(-2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All tokens at once, none before them: the way training reads. (B, heads, T, head_width)."""
        count = q.shape[-2]
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            shared = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            seen = band(count, count, self.window, q.device)
            return arithmetic.attend(q, k, v, torch.zeros_like(seen, dtype=q.dtype).masked_fill_(~seen, -torch.inf))
        # A mask keeps the fused kernel off its fast path, so it is built only where a window cuts.
        mask = None
        if self.window is not None and count > self.window:
            mask = band(count, count, self.window, q.device)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=k.shape[1] != q.shape[1],
        )

    def attend_past(self, q: Tensor, k: Tensor, v: Tensor, past: list[Past]) -> Tensor:
        """Row by row over each row's own cache. Reading caches where they lie beats copying them into one batch:
        21 ms against 36 for 8 rows of GPT-2 on two cores.
        """
        count = q.shape[2]
        for fresh, (_, _, room) in zip(torch.stack((k, v), 1).unbind(), past, strict=True):
            # A row shorter than the batch is padded on the right; its padding is neither kept nor answered.
            room.copy_(fresh[:, :, : room.shape[2]])
        if count == 1 and all(room.shape[2] == 1 for _, _, room in past):
            return attend_one(q, past, self.window)
        out = torch.zeros_like(q)
        for i, (keys, values, room) in enumerate(past):
            new = room.shape[2]
            if new:
                out[i, :, :new] = attend_row(q[i, :, :new], keys, values, self.window)
        return out


def attend_one(q: Tensor, past: list[Past], window: int | None) -> Tensor:
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


def attend_row(q: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
    """The last tokens of one row over all it has kept: (heads, new, D) over (kv_heads, kept, D)."""
    new, kept = q.shape[1], keys.shape[1]
    whole = new == kept and (window is None or kept <= window)
    return F.scaled_dot_product_attention(
        q.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=None if whole else band(new, kept, window, q.device),
        is_causal=whole,
        enable_gqa=keys.shape[0] != q.shape[0],
    ).squeeze(0)


def band(new: int, kept: int, window: int | None, device: torch.device) -> Tensor:
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
        self.gate = Linear(c.width, c.hidden, bias=c.bias) if c.gated else None
        self.up = Linear(c.width, c.hidden, bias=c.bias)
        self.down = Linear(c.hidden, c.width, bias=c.bias)
        self.bend = BENDS[c.activation]

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """What thinking adds to each token."""
        if self.gate is None:
            return self.down(self.bend(self.up(x)))  # type: ignore[no-any-return]  # nn.Module returns Any
        return self.down(self.bend(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]  # the same


BENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


class Block(nn.Module):
    """Attend, think; add each to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config, config.width)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self, x: Float[Tensor, "B T W"], turn: Turn | None, past: list[Past] | None = None
    ) -> Float[Tensor, "B T W"]:
        """The residual stream after this block."""
        x = self.add(x, self.attention_norm, lambda y: self.attention(y, turn, past))
        return self.add(x, self.feed_forward_norm, self.feed_forward)

    def add(self, x: Tensor, norm: nn.Module, step: Callable[[Tensor], Tensor]) -> Tensor:
        """x + step(norm(x)): the one place that knows the order of norm and step."""
        return x + F.dropout(step(norm(x)), self.dropout, self.training)
