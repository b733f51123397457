"""Frozen: norms with their scale as it was computed, so that a logit is a sum of what the steps added.

A norm divides by the size of the whole stream, so what one step adds changes how much the others count. Taken as
computed, that size is a number and the norm is linear (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits", section on layer norm). Where norms follow their steps, what is added passes every later one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.lens.hooks.residual_stream import Sublayer, sublayers, output_stack
from clearstory.models.arithmetic import LayerNorm


@dataclass(frozen=True)
class LinearisedNorm:
    """x ─► (x − its mean, in a layer norm) · scale · gain, and `shift`, the vector that the norm adds at the end."""

    scale: float
    gain: Float[Tensor, "W"]
    shift: Float[Tensor, "W"] | None
    centred: bool

    def __call__(self, parts: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        """Parts of what was normed, without the shift."""
        if self.centred:
            parts = parts - parts.mean(-1, keepdim=True)
        return parts * self.scale * self.gain


def linearise(norm: nn.Module, x: Float[Tensor, "W"]) -> LinearisedNorm:
    """A norm as it was for this vector; all in float64."""
    norm_: Any = norm
    x = x.double()
    centred = isinstance(norm, LayerNorm)
    spread = (x - x.mean() if centred else x).square().mean() + norm_.eps
    bias = getattr(norm_, "bias", None)
    return LinearisedNorm(float(spread.rsqrt()), norm_.weight.double(), None if bias is None else bias.double(), centred)


@dataclass(frozen=True)
class ResidualPath:
    """From each step of the stream to the vector that words are held against, at one place.

    `norms[k]` are those that what step k adds still passes; the last entry is that of what stands at the foot.
    """

    steps: tuple[Sublayer, ...]
    norms: tuple[tuple[LinearisedNorm, ...], ...]

    def carry(self, number: int, parts: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        """What parts of a step (−1: of the foot) have become at the end."""
        for norm in self.norms[number]:
            parts = norm(parts.double())
        return parts.double()

    def shifts(self) -> Float[Tensor, "W"]:
        """All that the norms themselves have added, at the end."""
        every = max(self.norms, key=len)
        total = torch.zeros_like(every[0].gain)
        for place, norm in enumerate(every):
            own = torch.zeros_like(total) if norm.shift is None else norm.shift
            for later in every[place + 1 :]:
                own = later(own)
            total = total + own
        return total


def residual_path(model: Any, seen: Mapping[str, Tensor], place: int) -> ResidualPath:
    """The road of one place, from what was seen at the taps of what each step reads and adds (see `road_taps`)."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    if stack.norm is not None:
        last = linearise(stack.norm, seen[steps[-1].after][0, place])
        return ResidualPath(tuple(steps), ((last,),) * (len(steps) + 1))
    befores = [f"{prefix}foot", *(step.after for step in steps)]
    frozen = [
        linearise(step.norm, seen[before][0, place].double() + seen[step.added][0, place].double())
        for (before, _), step in zip(pairwise(befores), steps, strict=True)
    ]
    norms = [tuple(frozen[number:]) for number in range(len(steps))]
    return ResidualPath(tuple(steps), (*norms, tuple(frozen)))


def residual_path_activations(model: Any) -> list[str]:
    """What must be watched for a road."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    return [f"{prefix}foot", *(step.after for step in steps), *(step.added for step in steps)]


def output_vectors(model: Any, ids: Sequence[int]) -> Float[Tensor, "N W"]:
    """The vectors that these words are predicted by, in float64 and divided as the model divides (T5)."""
    vectors: Tensor = model.output_weight[list(ids)].double()
    return vectors / model.config.width**0.5 if model.config.logit_scale else vectors
