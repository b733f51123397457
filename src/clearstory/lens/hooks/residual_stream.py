"""Residual stream of a Transformer: its sublayers, and the model's output if the stream ended after any of them.

Linearised norms: a norm divides by the size of the whole residual stream, so each sublayer's output changes how much
the others count. With the scale of the actual forward pass held constant, the norm is linear, and a logit is a sum over
the sublayers' outputs (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", section on layer norm).
In a post-norm model an output passes all later norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.errors import BadInput, CannotDo
from clearstory.lens.hooks.activations import transformer_stacks, unwrap_model
from clearstory.lens.hooks.passage import Passage
from clearstory.models.autograd_functions import LayerNorm
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, require
from clearstory.models.transformer.attention import Attention
from clearstory.models.transformer.block import Block, FeedForward
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer

SublayerKind = Literal["attention", "cross-attention", "feed-forward"]


@dataclass(frozen=True)
class Sublayer:
    """One sublayer of a block: the names of its output and of the residual stream after it, its module and its norm."""

    layer: int
    kind: SublayerKind
    output: str
    residual: str
    module: Attention | FeedForward
    norm: nn.Module

    @property
    def title(self) -> str:
        """For people: "3 feed-forward"."""
        return f"{self.layer} {self.kind}"


def require_linear_outputs(stack: Stack) -> None:
    """Raises CannotDo for a stack that normalizes the outputs of its sublayers, which are then not sums over heads."""
    if stack.config.sandwich_norm:
        raise CannotDo(
            "this model normalises the output of every sublayer, so what a head or neuron adds to the residual stream "
            "depends on all others; use --view attention, residual-stream or logit-lens"
        )


def output_stack(model: LanguageModel) -> tuple[str, Stack]:
    """The stack that the logits are computed from, and the prefix of its activation names."""
    return transformer_stacks(model)[-1]


def sublayers(prefix: str, stack: Stack) -> list[Sublayer]:
    """All sublayers of a stack in the order of computation."""
    found = []
    for layer, each in enumerate(stack.blocks):
        block, name = cast(Block, each), f"{prefix}blocks.{layer}"
        found.append(
            Sublayer(
                layer,
                "attention",
                f"{name}.attention",
                f"{name}.after_attention",
                block.self_attention,
                block.attention_norm,
            )
        )
        if block.cross_attention is not None and block.cross_attention_norm is not None:
            cross = (block.cross_attention, block.cross_attention_norm)
            names = (f"{name}.cross_attention", f"{name}.after_cross_attention")
            found.append(Sublayer(layer, "cross-attention", *names, *cross))
        found.append(
            Sublayer(layer, "feed-forward", f"{name}.feed_forward", name, block.feed_forward, block.feed_forward_norm)
        )
    return found


def final_hidden(model: LanguageModel, x: Float[Tensor, "B T W"], ids: Sequence[int]) -> Float[Tensor, "B T K"]:
    """The final hidden states, from which logits are computed, if the residual stream ended with x.

    The final norm is recomputed from x. `ids` are the tokens, for a model with hashed n-grams. For the stream after the
    last block the result equals that of the model's `forward`.
    """
    network, (_, stack) = unwrap_model(model), output_stack(model)
    x = x if stack.norm is None else stack.norm(x)
    if Capability.BIDIRECTIONAL in model.capabilities:
        return x
    if Capability.SOURCE in model.capabilities:
        return cast(Tensor, network.scale_hidden(x))
    known = None
    if Capability.HASHED_NGRAMS in model.capabilities:
        known = network.recall(torch.tensor([list(ids)], device=x.device))
    return cast(Tensor, network.apply_hashed_ngrams(x, known))


def answer_position(model: LanguageModel, tokenizer: Tokenizer, passage: Passage) -> int:
    """The position whose prediction is examined: the last token, or the first [MASK] of an encoder.

    Raises BadInput for an encoder's text without a [MASK], CannotDo for an encoder without a head for masked tokens.
    """
    if Capability.BIDIRECTIONAL not in model.capabilities:
        return len(passage.ids) - 1
    require_mlm_head(model)
    if tokenizer.mask_token_id is None or tokenizer.mask_token_id not in passage.ids:
        raise BadInput("an encoder predicts at a [MASK], but the text has none; replace a word with [MASK]")
    return passage.ids.index(tokenizer.mask_token_id)


def require_mlm_head(model: LanguageModel) -> None:
    """Raises CannotDo for an encoder that cannot predict masked tokens."""
    if Capability.BIDIRECTIONAL in model.capabilities:
        require(model, Capability.MLM_HEAD)


def single_token(tokenizer: Tokenizer, word: str) -> int:
    """The token that a word is, after a space if that is one. Raises BadInput for a word of several tokens."""
    forms = [ids for form in (f" {word}", word) if len(ids := tokenizer.encode(form)) == 1]
    if not forms:
        pieces = " · ".join(tokenizer.display_token(id) for id in tokenizer.encode(word))
        raise BadInput(f"'{word}' is not one token but {pieces or 'none'}; choose a shorter or more frequent word")
    return forms[0][0]


def split_target_and_words(
    model: LanguageModel, target: str | None, words: Sequence[str]
) -> tuple[str | None, tuple[str, ...]]:
    """The text an encoder-decoder has generated so far, and the words whose logits are examined.

    For a model without a source, `target` is the first of the words.
    """
    if Capability.SOURCE in model.capabilities or target is None:
        return target, tuple(words)
    return None, (target, *words)


@dataclass(frozen=True)
class LinearisedNorm:
    """x ─► (x − its mean, in a layer norm) · scale · gain; `bias` is the vector that the norm adds at the end."""

    scale: float
    gain: Float[Tensor, "W"]
    bias: Float[Tensor, "W"] | None
    centred: bool

    def __call__(self, parts: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        """Summands of the norm's input, normed without the bias."""
        if self.centred:
            parts = parts - parts.mean(-1, keepdim=True)
        return parts * self.scale * self.gain


def linearise(norm: nn.Module, x: Float[Tensor, "W"]) -> LinearisedNorm:
    """A norm with the scale that it has for the input x; all in float64."""
    norm_: Any = norm
    x = x.double()
    centred = isinstance(norm, LayerNorm)
    spread = (x - x.mean() if centred else x).square().mean() + norm_.eps
    bias = getattr(norm_, "bias", None)
    return LinearisedNorm(
        float(spread.rsqrt()), norm_.weight.double(), None if bias is None else bias.double(), centred
    )


@dataclass(frozen=True)
class ResidualPath:
    """The linear maps from each sublayer's output to the input of the unembedding, at one position.

    `norms[k]` are the norms that the output of sublayer k passes; the last entry is for the embedding output.
    """

    sublayers: tuple[Sublayer, ...]
    norms: tuple[tuple[LinearisedNorm, ...], ...]

    def propagate(self, index: int, parts: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        """Summands of the output of one sublayer (−1: of the embedding output), mapped to the end of the stream."""
        for norm in self.norms[index]:
            parts = norm(parts.double())
        return parts.double()

    def norm_biases(self) -> Float[Tensor, "W"]:
        """The sum of all norms' biases, mapped to the end of the stream."""
        longest = max(self.norms, key=len)
        total = torch.zeros_like(longest[0].gain)
        for index, norm in enumerate(longest):
            bias = torch.zeros_like(total) if norm.bias is None else norm.bias
            for later in longest[index + 1 :]:
                bias = later(bias)
            total = total + bias
        return total


def residual_path(model: LanguageModel, recorded: Mapping[str, Tensor], position: int) -> ResidualPath:
    """The residual path at one position, from the activations that `residual_path_activations` names."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    if stack.norm is not None:
        final = linearise(stack.norm, recorded[steps[-1].residual][0, position])
        return ResidualPath(tuple(steps), ((final,),) * (len(steps) + 1))
    inputs = [f"{prefix}embedding_output", *(step.residual for step in steps)]
    post_norms = [
        linearise(step.norm, recorded[before][0, position].double() + recorded[step.output][0, position].double())
        for (before, _), step in zip(pairwise(inputs), steps, strict=True)
    ]
    norms = [tuple(post_norms[index:]) for index in range(len(steps))]
    return ResidualPath(tuple(steps), (*norms, tuple(post_norms)))


def residual_path_activations(model: LanguageModel) -> list[str]:
    """The names of the activations that `residual_path` needs."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    return [f"{prefix}embedding_output", *(step.residual for step in steps), *(step.output for step in steps)]


def output_vectors(model: LanguageModel, ids: Sequence[int]) -> Float[Tensor, "N W"]:
    """Rows of the unembedding for some tokens in float64, divided by √width where the model scales its logits (T5)."""
    network = unwrap_model(model)
    vectors: Tensor = network.output_weight[list(ids)].double()
    return vectors / network.config.width**0.5 if network.config.logit_scale else vectors
