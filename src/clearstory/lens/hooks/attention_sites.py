"""Site: one attention of a model. Which stack and layer it stands in, and whose tokens its queries and keys are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.trace import unwrap_model, transformer_stacks
from clearstory.models.block import Attention, band
from clearstory.models.encoder import Encoder
from clearstory.models.encoder_decoder import EncoderDecoder
from clearstory.models.lora import Adapted
from clearstory.models.stack import Stack

AttentionPart = Literal["encoder", "decoder", "cross"]
"""Whose attention: the encoder's over what it reads, the decoder's over what it has written, or across from the
decoder at what the encoder has read."""


@dataclass(frozen=True)
class AttentionSite:
    """An attention and where it stands. `tap` is its name in a trace."""

    stack: Stack
    attention: Attention
    norm: nn.Module
    part: AttentionPart
    layer: int
    tap: str

    @property
    def heads(self) -> int:
        """How many heads it has."""
        return self.stack.config.heads

    @property
    def width(self) -> int:
        """Of one head's queries and keys."""
        return self.attention.head_width

    @property
    def words(self) -> str:
        """The site in words: "layer 3", "layer 3 across", "encoder layer 3"."""
        if self.part == "cross":
            return f"layer {self.layer}, across"
        return f"{'' if self.tap.startswith('blocks') else self.part + ' '}layer {self.layer}"

    def reads(self, passage: Passage) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels of its queries and of its keys."""
        labels, source = passage.labels, passage.source_labels
        if self.part == "cross":
            return labels, source
        own = source if self.part == "encoder" and passage.source else labels
        return own, own

    def visible(self, pattern: Float[Tensor, "*D T S"]) -> Int[Tensor, "T"]:
        """How many keys each query may look at."""
        count, keys = pattern.shape[-2:]
        if not self.attention.causal:
            return torch.full((count,), keys, device=pattern.device)
        return band(count, keys, self.attention.window, pattern.device).sum(-1)

    def head(self, number: int | None, pattern: Float[Tensor, "H T S"]) -> int:
        """The head asked for; when none is, the one whose tokens take most from their favourite, where they have a
        choice. Raises BadSetting for one that is not there.
        """
        if number is None:
            choice = self.visible(pattern) > 1
            return int((pattern.amax(-1) * choice).sum(-1).argmax())
        if not 0 <= number < self.heads:
            raise BadSetting(f"head is {number}, and the layer has {self.heads}; give 0 to {self.heads - 1}")
        return number


def attention_parts(model: Any) -> tuple[AttentionPart, ...]:
    """The attentions that a model has. Raises CannotDo for one that has none."""
    transformer_stacks(model)
    model = unwrap_model(model)
    if isinstance(model, EncoderDecoder):
        return ("encoder", "decoder", "cross")
    return ("encoder",) if isinstance(model, Encoder) else ("decoder",)


def attention_sites(model: Any, part: AttentionPart | None = None) -> list[AttentionSite]:
    """One part's attentions, layer by layer; of an encoder-decoder the encoder's where no part is named.

    Raises CannotDo for a model or a part without attention, BadSetting for a part that no model has.
    """
    has = attention_parts(model)
    part = has[0] if part is None else part
    if part not in ("encoder", "decoder", "cross"):
        raise BadSetting(f"part is '{part}'; it must be encoder, decoder or cross")
    if part not in has:
        kind = "an encoder" if has == ("encoder",) else "a decoder"
        raise CannotDo(f"part is '{part}', and this model is {kind} alone; leave part out")
    prefix, stack = transformer_stacks(model)[0 if part == has[0] else 1]
    name = "cross_attention" if part == "cross" else "attention"
    return [
        AttentionSite(
            stack=stack,
            attention=getattr(block, name),
            norm=getattr(block, f"{name}_norm"),
            part=part,
            layer=layer,
            tap=f"{prefix}blocks.{layer}.{name}",
        )
        for layer, block in enumerate(stack.blocks)
    ]


def attention_site(model: Any, layer: int = -1, part: AttentionPart | None = None) -> AttentionSite:
    """One attention; layers are counted from 0, or back from -1. Raises BadSetting for one that is not there."""
    known = attention_sites(model, part)
    if not -len(known) <= layer < len(known):
        raise BadSetting(f"layer is {layer}, and the model has {len(known)}; give 0 to {len(known) - 1}")
    return known[layer]


def linear_weight(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The matrix and the bias of a linear map, with what was learnt beside it added."""
    whole: Any = linear.merged() if isinstance(linear, Adapted) else linear
    return whole.weight.detach(), None if whole.bias is None else whole.bias.detach()


def head_rows(weight: Float[Tensor, "HD W"], head: int, width: int) -> Float[Tensor, "D W"]:
    """One head's rows of the matrix that makes queries, keys or values."""
    return weight[head * width : (head + 1) * width]


def kv_head(model_heads: int, kv_heads: int, head: int) -> int:
    """The key-value head that a head looks by, where several share one.

    >>> [shared_head(6, 2, head) for head in range(6)]
    [0, 0, 0, 1, 1, 1]
    """
    return head // (model_heads // kv_heads)
