"""Moved: what every head adds to a word in a text, and what it looks at from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from clearstory.errors import CannotDo
from clearstory.lens.probes.word_in_context import LayerVectors
from clearstory.lens.hooks.activations import unwrap_model, transformer_stacks, record_activations
from clearstory.models.base import inference_mode
from clearstory.models.recurrent.model import Recurrent

LOOKS = 3
"""Tokens told of each head that it looks at."""


@dataclass(frozen=True)
class HeadContribution:
    """What one head adds to a word: (W,), the mean over its tokens; and the tokens that it looks at most from there,
    with their weights.
    """

    layer: int
    head: int
    added: Tensor
    looks: tuple[tuple[str, float], ...]

    @property
    def reads(self) -> str:
        """Where it looks most."""
        return self.looks[0][0]


def head_contributions(model: Any, seen: LayerVectors, tokens: Sequence[int]) -> list[HeadContribution]:
    """ΔE of every head at some tokens of a text. Raises CannotDo for a model without attention."""
    if isinstance(unwrap_model(model), Recurrent):
        raise CannotDo("a recurrent model has no heads that could move a word")
    prefix, stack = transformer_stacks(model)[0]
    row = seen.read.source_labels or seen.read.labels
    found: list[HeadContribution] = []
    with (
        inference_mode(model),
        record_activations(model, f"{prefix}blocks.*.attention.head_outputs", f"{prefix}blocks.*.attention.pattern") as at,
    ):
        seen.read.hidden(model)
        for layer, block in enumerate(cast(Any, stack.blocks)):
            own = f"{prefix}blocks.{layer}.attention"
            answer, pattern = at[f"{own}.head_outputs"][0], at[f"{own}.pattern"][0]
            parts = block.attention.output.weight.unflatten(1, (answer.shape[0], -1))  # (W, H, D)
            added = torch.einsum("htd,whd->htw", answer[:, list(tokens)].to(parts.dtype), parts).mean(1)
            looks = pattern[:, list(tokens)].mean(1).topk(min(LOOKS, len(row)))
            told = zip(looks.indices.tolist(), looks.values.tolist(), strict=True)
            found += [
                HeadContribution(
                    layer,
                    head,
                    added[head].float().cpu().clone(),
                    tuple((row[place], weight) for place, weight in zip(places, weights, strict=True)),
                )
                for head, (places, weights) in enumerate(told)
            ]
    return found
