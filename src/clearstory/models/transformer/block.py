"""One Transformer block: attention or a recurrence, cross-attention in a decoder with a source, feed-forward; residual
connections.

Vaswani et al. 2017, section 3; the norm before each sublayer as in Radford et al. 2019, or after it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.autograd_functions import LayerNorm, Linear, RMSNorm, dropout, gelu_tanh, joined_linear
from clearstory.models.transformer.attention import Attention, Bias, LayerCaches, RotaryAngles, Source
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.packed_sequences import PackedSequences
from clearstory.models.transformer.ssru import SSRU, LayerCell

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


def make_norm(config: TransformerConfig, width: int) -> nn.Module:
    """A new norm layer of the config's kind over vectors of `width`."""
    if config.norm != "layer":
        return RMSNorm(width, eps=config.norm_eps, unit_offset=config.norm == "rms_unit_offset")
    return LayerNorm(width, eps=config.norm_eps, bias=config.bias)


class FeedForward(nn.Module):
    """Position-wise feed-forward layer: down(act(up x)), or gated, down(act(gate x) · up x) (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.gate = Linear(c.width, c.intermediate_size, bias=c.bias) if c.gated else None
        self.up = Linear(c.width, c.intermediate_size, bias=c.bias)
        self.down = Linear(c.intermediate_size, c.width, bias=c.bias)
        self.output_norm = make_norm(c, c.width) if c.sandwich_norm else None
        self.activation = ACTIVATIONS[c.activation]

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """The layer's output, (B, T, W)."""
        if self.gate is None:
            hidden = self.activation(self.up(x))
        else:
            gate, up = joined_linear(x, (self.gate, self.up))
            hidden = self.activation(gate) * up
        out: Tensor = self.down(hidden)
        return out if self.output_norm is None else self.output_norm(out)


class Block(nn.Module):
    """Attention, cross-attention where there is a source, and feed-forward, each added to the residual stream. A
    decoder with a source has an SSRU in place of attention where the config says so.
    """

    def __init__(self, config: TransformerConfig, causal: bool = True, cross: bool = False, layer: int = 0) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.width)
        recurrent = cross and config.decoder_autoregression == "ssru"
        self.attention = SSRU(config) if recurrent else Attention(config, causal, config.window(layer))
        if config.sandwich_norm and not recurrent:
            self.self_attention.output_norm = make_norm(config, config.width)
        self.cross_attention_norm = make_norm(config, config.width) if cross else None
        self.cross_attention = Attention(config, causal=False) if cross else None
        self.feed_forward_norm = make_norm(config, config.width)
        self.feed_forward = FeedForward(config)
        self.norm_first = config.norm_first
        self.dropout = config.dropout

    def forward(
        self,
        x: Float[Tensor, "B T W"],
        rotary: RotaryAngles | None,
        caches: LayerCaches | list[LayerCell] | None = None,
        bias: Bias = None,
        source: Source | None = None,
    ) -> Float[Tensor, "B T W"]:
        """The residual stream after this block, (B, T, W)."""
        reads = (caches,) if isinstance(self.attention, SSRU) else (rotary, caches, bias)
        x = self.residual(x, self.attention_norm, lambda y: self.attention(y, *reads))
        if self.cross_attention is not None and self.cross_attention_norm is not None and source is not None:
            cross_attend = self.cross_attention.cross_attend
            x = self.residual(x, self.cross_attention_norm, lambda y: cross_attend(y, source))
        return self.residual(x, self.feed_forward_norm, self.feed_forward)

    def forward_first(self, x: Float[Tensor, "1 N W"], packed: PackedSequences) -> Float[Tensor, "1 B W"]:
        """The residual stream of the first token of each packed sequence after this block, (1, B, W): what the last
        block computes for a head that reads no other token.
        """
        attend = self.self_attention.attend_from_first
        x = self.residual(x, self.attention_norm, lambda y: attend(y, packed), packed.starts)
        return self.residual(x, self.feed_forward_norm, self.feed_forward)

    @property
    def self_attention(self) -> Attention:
        """The block's attention, where it has no recurrence."""
        assert isinstance(self.attention, Attention), "a block with an SSRU has no self-attention"
        return self.attention

    def project_source(self, source: Float[Tensor, "B S W"]) -> Float[Tensor, "B 2 H S D"]:
        """Cross-attention keys and values of a source, (B, 2, kv_heads, S, D), computed once per source."""
        assert self.cross_attention is not None, "only a decoder with a source has cross-attention"
        return torch.stack(self.cross_attention.keys_and_values(source, None), 1)

    def residual(
        self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor], kept: Tensor | None = None
    ) -> Tensor:
        """x + sublayer(norm(x)), or norm(x + sublayer(x)): the only place that knows the order of norm and sublayer.

        `kept` are the tokens that the sublayer returns, where it does not return all.
        """
        before = x if kept is None else x.index_select(1, kept)
        if self.norm_first:
            return before + dropout(sublayer(norm(x)), self.dropout, self.training)
        out: Tensor = norm(before + dropout(sublayer(x), self.dropout, self.training))
        return out
