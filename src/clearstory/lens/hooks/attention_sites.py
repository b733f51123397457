"""Attention sites: the attention layers of a model, their heads, weights and patterns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.activations import (
    is_recurrent_with_attention,
    record_activations,
    transformer_stacks,
    unwrap_model,
)
from clearstory.lens.hooks.passage import Passage
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.lora import LoRALinear
from clearstory.models.transformer.attention import causal_mask

AttentionPart = Literal["encoder", "decoder", "cross"]
"""Self-attention of the encoder or of the decoder, or the decoder's cross-attention to the source."""


@dataclass(frozen=True)
class AttentionSite:
    """One attention layer of a model. `name` is the name of its output among the activations.

    The attention of a recurrent decoder is a SourceAttention, which is in no stack and has no norm.
    """

    stack: Any  # a Stack, or None
    attention: Any  # an Attention or a SourceAttention
    norm: Any  # a norm, or None
    part: AttentionPart
    layer: int
    name: str

    @property
    def heads(self) -> int:
        """Number of heads."""
        return 1 if self.stack is None else int(self.stack.config.heads)

    @property
    def head_dim(self) -> int:
        """Width of one head's queries and keys."""
        return int(self.attention.head_dim)

    @property
    def title(self) -> str:
        """For people: "layer 3", "layer 3, cross-attention", "encoder layer 3", "the decoder"."""
        if self.stack is None:
            return "the decoder"
        if self.part == "cross":
            return f"layer {self.layer}, cross-attention"
        return f"{'' if self.name.startswith('blocks') else self.part + ' '}layer {self.layer}"

    def labels(self, passage: Passage) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Labels of the queries and of the keys."""
        labels, source = passage.labels, passage.source_labels
        if self.part == "cross":
            return labels, source
        labels = source if self.part == "encoder" and passage.source else labels
        return labels, labels

    def visible_counts(self, pattern: Float[Tensor, "*D T S"]) -> Int[Tensor, "T"]:
        """Number of keys that the mask leaves to each query."""
        count, keys = pattern.shape[-2:]
        if not self.attention.causal:
            return torch.full((count,), keys, device=pattern.device)
        return causal_mask(count, keys, self.attention.sliding_window, pattern.device).sum(-1)

    def special_keys(self, passage: Passage) -> tuple[bool, ...]:
        """For each key, whether it is a special token or one of the chat template."""
        return passage.text_special if self.part != "decoder" and passage.source else passage.special

    def selectivity(self, pattern: Float[Tensor, "H T S"], special: Sequence[bool] = ()) -> Float[Tensor, "H"]:
        """How much the attention of each head depends on the words: Σ (weight − expected)² over weights above that.

        Expected is the largest of a uniform weight and of the head's mean weights at the same distance and on the same
        key, over the other queries. Weights on special tokens, on the first token, on the query itself and on its
        neighbours do not count. Heads that attend to the first token, at a fixed distance or evenly have next to none.
        """
        queries, keys = pattern.shape[-2:]
        visible = torch.ones(queries, keys, dtype=torch.bool, device=pattern.device)
        if self.attention.causal:
            visible = causal_mask(queries, keys, self.attention.sliding_window, pattern.device)
        counted, key_at = visible.clone(), torch.arange(keys, device=pattern.device)
        expected = 1 / visible.sum(-1, keepdim=True).clamp(min=1).to(pattern)
        expected = torch.maximum(expected, mean_of_others(pattern, visible, key_at.expand(queries, keys), keys))
        if self.part != "cross":
            distance = key_at[:queries, None] - key_at + keys - 1
            expected = torch.maximum(expected, mean_of_others(pattern, visible, distance, 2 * keys - 1))
            counted &= (distance - keys + 1).abs() > 1
            counted[:, 0] = False
        if special:
            is_special = torch.tensor(special, device=pattern.device)
            counted &= ~is_special
            if self.part != "cross":
                counted &= ~is_special[:, None]
        return ((pattern - expected).clamp(min=0).square() * counted).sum((-1, -2))

    def resolve_head(self, head: int | None, pattern: Float[Tensor, "H T S"], special: Sequence[bool] = ()) -> int:
        """The given head; without one, the head with the largest `selectivity`.

        Raises BadSetting for a head that does not exist.
        """
        if head is None:
            return int(self.selectivity(pattern, special).argmax())
        self.check_head(head)
        return head

    def check_head(self, head: int) -> None:
        """Raise BadSetting for a head that does not exist."""
        if not 0 <= head < self.heads:
            raise BadSetting(f"head is {head}, and the layer has {self.heads}; give 0 to {self.heads - 1}")


def attention_parts(model: LanguageModel) -> tuple[AttentionPart, ...]:
    """The kinds of attention that a model has. Raises CannotDo for one without attention."""
    if is_recurrent_with_attention(model):
        return ("cross",)
    transformer_stacks(model)
    if Capability.SOURCE in model.capabilities:
        return ("encoder", "decoder", "cross")
    return ("encoder",) if Capability.BIDIRECTIONAL in model.capabilities else ("decoder",)


def attention_sites(model: LanguageModel, part: AttentionPart | None = None) -> list[AttentionSite]:
    """The attention layers of one part, the lowest first; without `part`, those of the first stack.

    Raises CannotDo for a model without attention or without this part, BadSetting for an unknown part.
    """
    parts = attention_parts(model)
    part = parts[0] if part is None else part
    if part not in ("encoder", "decoder", "cross"):
        raise BadSetting(f"part is '{part}'; it must be encoder, decoder or cross")
    if part not in parts:
        only = {"encoder": "is an encoder only", "decoder": "is a decoder only", "cross": "has cross-attention only"}
        raise CannotDo(f"part is '{part}', but this model {only[parts[0]]}; leave part out")
    if is_recurrent_with_attention(model):
        attention = unwrap_model(model).decoder.cross_attention
        return [AttentionSite(stack=None, attention=attention, norm=None, part=part, layer=0, name="cross_attention")]
    prefix, stack = transformer_stacks(model)[0 if part == parts[0] else 1]
    name = "cross_attention" if part == "cross" else "attention"
    return [
        AttentionSite(
            stack=stack,
            attention=getattr(block, name),
            norm=getattr(block, f"{name}_norm"),
            part=part,
            layer=layer,
            name=f"{prefix}blocks.{layer}.{name}",
        )
        for layer, block in enumerate(stack.blocks)
    ]


def mean_of_others(
    pattern: Float[Tensor, "H T S"], visible: Bool[Tensor, "T S"], group: Int[Tensor, "T S"], groups: int
) -> Float[Tensor, "H T S"]:
    """For each weight the mean of the other visible weights of its group, 0 if there is none."""
    index = group.flatten()
    sums = pattern.new_zeros(len(pattern), groups).index_add(1, index, pattern.flatten(1))
    counts = pattern.new_zeros(groups).index_add(0, index, visible.flatten().to(pattern))
    return (sums[:, index].view_as(pattern) - pattern) / (counts[index].view_as(group) - 1).clamp(min=1)


def choose_head(
    model: LanguageModel,
    passage: Passage,
    layer: int | None = None,
    head: int | None = None,
    part: AttentionPart | None = None,
) -> tuple[AttentionSite, int, Float[Tensor, "T S"] | None]:
    """The attention layer and the head to show: the given ones; without both, the head of all layers with the largest
    `selectivity`; without a head, that of the layer; without a layer, the last one. A head that was chosen comes with
    its attention weights.

    Raises BadSetting for a layer or a head that does not exist.
    """
    if head is not None:
        site = attention_site(model, -1 if layer is None else layer, part)
        site.check_head(head)
        return site, head, None
    sites = attention_sites(model, part) if layer is None else [attention_site(model, layer, part)]
    remaining = iter(sites)
    largest = -math.inf
    chosen: tuple[AttentionSite, int, Tensor] | None = None

    def measure(pattern: Tensor) -> Tensor:
        nonlocal largest, chosen
        site = next(remaining)
        selectivity = site.selectivity(pattern[0], site.special_keys(passage))
        if chosen is None or float(selectivity.max()) > largest:
            largest, best = float(selectivity.max()), int(selectivity.argmax())
            chosen = site, best, pattern[0, best].clone()
        return selectivity[None]

    attention_patterns(model, passage, sites, measure)
    assert chosen is not None, "a model with attention has a layer"
    return chosen


def attention_site(model: LanguageModel, layer: int = -1, part: AttentionPart | None = None) -> AttentionSite:
    """One attention layer; negative layers count from the last. Raises BadSetting for a layer that does not exist."""
    sites = attention_sites(model, part)
    if not -len(sites) <= layer < len(sites):
        raise BadSetting(f"layer is {layer}, and the model has {len(sites)}; give 0 to {len(sites) - 1}")
    return sites[layer]


def attention_patterns(
    model: LanguageModel,
    passage: Passage,
    sites: list[AttentionSite],
    keep: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """Attention weights (H, T, S) of several layers from one forward pass, in the order of `sites`.

    `keep` is called with each layer's (1, H, T, S), and the first row of its result is returned in place of the
    weights; a layer's weights are freed before the next layer's are computed.
    """
    names = [f"{site.name}.pattern" for site in sites]
    with inference_mode(model), record_activations(model, *names, keep=keep) as recorded:
        passage.forward(model)
    return [recorded[name][0] for name in names]


def attention_weights(model: LanguageModel, passage: Passage, site: AttentionSite) -> Float[Tensor, "H T S"]:
    """Attention weights of all heads of one layer; rows are queries, columns keys, and rows sum to 1."""
    [weights] = attention_patterns(model, passage, [site])
    return weights


def pooled_patterns(
    model: LanguageModel, passage: Passage, part: AttentionPart | None = None, cells: int = 40
) -> Tensor:
    """Every head's pattern, max-pooled to at most `cells` rows and columns: (layers, heads, rows, columns) uint8.

    255 is a weight of 1. For 512 tokens, 30 layers of 9 heads take 0.4 MB instead of 283, and the weights of no two
    layers are in memory at once.
    """
    pool = partial(pool_pattern, cells=cells)
    return torch.stack(attention_patterns(model, passage, attention_sites(model, part), pool))


def pool_pattern(pattern: Float[Tensor, "B H T S"], cells: int) -> Tensor:
    """One layer's patterns, max-pooled to at most `cells` rows and columns, uint8; 255 is a weight of 1."""
    size = (min(cells, pattern.shape[-2]), min(cells, pattern.shape[-1]))
    return (F.adaptive_max_pool2d(pattern.float(), size) * 255).round().to(torch.uint8)


def linear_weight(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear map, LoRA updates included."""
    merged: Any = linear.merged() if isinstance(linear, LoRALinear) else linear
    return merged.weight.detach(), None if merged.bias is None else merged.bias.detach()


def head_rows(weight: Float[Tensor, "HD W"], head: int, head_dim: int) -> Float[Tensor, "D W"]:
    """The rows of a query, key or value matrix that belong to one head."""
    return weight[head * head_dim : (head + 1) * head_dim]


def kv_head(heads: int, kv_heads: int, head: int) -> int:
    """The key-value head that a query head uses.

    >>> [kv_head(6, 2, head) for head in range(6)]
    [0, 0, 0, 1, 1, 1]
    """
    return head // (heads // kv_heads)
