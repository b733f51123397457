"""Linearised norms: norms with their scale held constant, so that a logit is a sum over the sublayers' outputs.

A norm divides by the size of the whole residual stream, so each sublayer's output changes how much the others count.
With the scale of the actual forward pass held constant, the norm is linear (Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits", section on layer norm). In a post-norm model an output passes all later norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.hooks.residual_stream import Sublayer, output_stack, sublayers
from clearstory.models.autograd_functions import LayerNorm
from clearstory.models.base import LanguageModel


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
            own = torch.zeros_like(total) if norm.bias is None else norm.bias
            for later in longest[index + 1 :]:
                own = later(own)
            total = total + own
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
