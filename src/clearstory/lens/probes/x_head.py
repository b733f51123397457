"""Head: one head of attention, number by number, from what it reads to what it adds.

    E ─► q, k, v ─► q·k ─► ÷ √d (+ bias) ─► mask ─► softmax ─► weights · v ─► output matrix ─► ΔE ─► E + ΔE

Vaswani et al. 2017, section 3.2; the output matrix split by head as Elhage et al. 2021 have it, so that what attention
adds is the sum of what its heads add, and its bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, head_rows, kv_head, attention_site, linear_weight
from clearstory.lens.hooks.activations import unwrap_model, record_activations
from clearstory.models.autograd_functions import RMSNorm
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.base import inference_mode


@dataclass(frozen=True)
class HeadQuantities:
    """All that one head does: T tokens look at S, in vectors of D numbers; the stream has W.

    `reads` is what queries are made of and `source` what keys and values are, the same unless it looks across.
    `bias` is added to scores by how far apart they stand, where the model does so. `stream` is what `added` is added
    to, beside what the other heads add. `effect` is `added` on its way to the unembedding: see `on_the_way`.
    """

    site: AttentionSite
    head: int
    reads: Float[Tensor, "T W"]
    source: Float[Tensor, "S W"]
    query: Float[Tensor, "T D"]
    key: Float[Tensor, "S D"]
    value: Float[Tensor, "S D"]
    dots: Float[Tensor, "T S"]
    scaled: Float[Tensor, "T S"]
    bias: Float[Tensor, "T S"] | None
    scores: Float[Tensor, "T S"]
    pattern: Float[Tensor, "T S"]
    answer: Float[Tensor, "T D"]
    added: Float[Tensor, "T W"]
    stream: Float[Tensor, "T W"]
    after: Float[Tensor, "T W"]
    effect: Float[Tensor, "T W"] | None


def head_quantities(model: Any, read: Passage, layer: int = -1, head: int | None = None, part: AttentionPart | None = None) -> HeadQuantities:
    """Every quantity of one head over a passage, from one reading; of the most decided head where none is named.

    Raises BadSetting for a layer or head that is not there, CannotDo for a part that the model has not.
    """
    at = attention_site(model, layer, part)
    before, last = streams(at)
    own = [f"{at.tap}.{each}" for each in ("input", "query", "key", "value", "scores", "pattern", "head_outputs")]
    across = [source_tap(model)] if at.part == "cross" else []
    with inference_mode(model), record_activations(model, *own, before, last, *across) as seen:
        read.hidden(model)
        reads, query, key, value, scores, pattern, answer = (seen[name][0] for name in own)
        number = at.head(head, pattern)
        shared = kv_head(at.heads, key.shape[0], number)
        query, key, value, answer = query[number], key[shared], value[shared], answer[number]
        dots = query @ key.mT
        added = head_output_in_stream(at, answer, number)
        biases = None if at.stack.relative_position_bias is None or at.part == "cross" else at.stack.relative_position_bias(*dots.shape)[number]
        return HeadQuantities(
            site=at,
            head=number,
            reads=reads,
            source=seen[across[0]][0] if across else reads,
            query=query,
            key=key,
            value=value,
            dots=dots,
            scaled=dots / math.sqrt(at.width),
            bias=biases,
            scores=scores[number],
            pattern=pattern[number],
            answer=answer,
            added=added,
            stream=seen[before][0],
            after=seen[before][0] + added,
            effect=on_the_way(model, at, added, seen[last][0]),
        )


def streams(at: AttentionSite) -> tuple[str, str]:
    """The taps of the stream that an attention adds to, and of the stream after the last block."""
    prefix, _, _ = at.tap.rpartition("blocks.")
    if at.part == "cross":
        before = f"{prefix}blocks.{at.layer}.after_attention"
    else:
        before = f"{prefix}blocks.{at.layer - 1}" if at.layer else f"{prefix}embedding_output"
    return before, f"{prefix}blocks.{len(at.stack.blocks) - 1}"


def source_tap(model: Any) -> str:
    """The tap of what a decoder looks across at: the encoder's last vectors."""
    encoder = unwrap_model(model).encoder
    return "encoder.norm" if encoder.norm is not None else f"encoder.blocks.{len(encoder.blocks) - 1}"


def head_output_in_stream(at: AttentionSite, answer: Float[Tensor, "T D"], head: int) -> Float[Tensor, "T W"]:
    """What one head adds to the stream: its answer, by its own columns of the output matrix; without the bias.

    All heads' parts and the bias are what attention adds.
    """
    weight, _ = linear_weight(at.attention.output)
    return F.linear(answer, head_rows(weight.mT, head, at.width).mT.to(answer.dtype))


def on_the_way(
    model: Any, at: AttentionSite, added: Float[Tensor, "T W"], last: Float[Tensor, "T W"]
) -> Float[Tensor, "T W"] | None:
    """What is added, as the unembedding would read it, so that its product with a word's vector is in logits.

    What later blocks make of it is left out, and the last norm's scale is taken as it was, from the stream `last` that
    it read: then a norm is linear, and what is added does one thing whatever else is. Where norms follow their steps
    there is no last one, and nothing is changed. None for an encoder beside a decoder, which no word is read off.
    """
    network = unwrap_model(model)
    if isinstance(network, EncoderDecoder) and at.part == "encoder":
        return None
    effect = added if at.stack.norm is None else through_norm(at.stack.norm, added, last)
    return network.scale_hidden(effect[None])[0] if isinstance(network, EncoderDecoder) else effect


def through_norm(norm: nn.Module, added: Float[Tensor, "T W"], x: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
    """A part of what a norm reads, with the scale of the whole, x; the parts of x so treated add up to norm(x) but for
    the norm's bias.

    >>> import torch
    >>> norm, x = RMSNorm(4, eps=1e-6), torch.ones(1, 4)
    >>> torch.allclose(through(norm, 0.25 * x, x) + through(norm, 0.75 * x, x), norm(x))
    True
    """
    if isinstance(norm, RMSNorm):
        scale = (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
        return added * scale * norm.weight.detach()
    assert isinstance(norm, nn.LayerNorm)
    scale = (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt()
    return (added - added.mean(-1, keepdim=True)) * scale * norm.weight.detach()


SOME_ROWS = 32
"""Tokens whose logits are held at a time: of 512 over 49,152 words they were 100 MB."""


def logit_changes(
    model: Any, effect: Float[Tensor, "T W"], top: int = 3
) -> Iterable[tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
    """Of each token, the ids whose logits rise most and fall most, with by how much."""
    weight = unwrap_model(model).output_weight.detach().to(effect.dtype)
    for begin in range(0, len(effect), SOME_ROWS):
        logits = effect[begin : begin + SOME_ROWS] @ weight.mT
        sides = []
        for largest in (True, False):
            values, ids = logits.topk(min(top, logits.shape[-1]), largest=largest)
            pairs = zip(ids.tolist(), values.tolist(), strict=True)
            sides.append([list(zip(*pair, strict=True)) for pair in pairs])
        yield from zip(*sides, strict=True)
