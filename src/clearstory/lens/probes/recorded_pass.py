"""Recorded pass: the activations of one forward pass of a Transformer from which its other quantities follow.

Attention weights are not recorded: they follow from queries and keys, one layer at a time. Of the neurons only the
largest are kept: all of 400 tokens and 30 layers of 1,536 are 74 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.activations import activation_names, record_activations, transformer_stacks
from clearstory.lens.hooks.attention_sites import attention_parts
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.probes.token_groups import TokenGroups
from clearstory.models.base import LanguageModel, inference_mode

LARGEST_NEURONS = 12
"""Neurons of each token that are kept."""


@dataclass(frozen=True)
class RecordedPass:
    """The activations of one forward pass, without the batch dimension, and each layer's largest neurons by name.

    The largest neurons are (3, R, N): numbers, values, and in the last the count of those above a tenth of the largest.
    """

    activations: dict[str, Tensor]
    neurons: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.activations[name]


def record_pass(model: LanguageModel, passage: Passage, groups: Mapping[str, TokenGroups]) -> RecordedPass:
    """One forward pass: streams, outputs of sublayers, queries, keys and values; of neurons the largest only."""
    heavy = (".neurons", ".scores", ".pattern", ".head_outputs", ".input", "embedding")
    names = [name for name in activation_names(model) if not name.endswith(heavy)]
    first = attention_parts(model)[0]
    with inference_mode(model), ExitStack() as active:
        recorded = active.enter_context(record_activations(model, *names))
        neurons: list[dict[str, Tensor]] = []
        for prefix, _ in transformer_stacks(model):
            rows = groups[prefix.rstrip(".") or first].last
            keep = partial(largest_neurons, rows=rows)
            pattern = f"{prefix}blocks.*.feed_forward.neurons"
            neurons.append(active.enter_context(record_activations(model, pattern, keep=keep)))
        passage.forward(model)
    largest = {name: value for each in neurons for name, value in each.items()}
    return RecordedPass({name: value[0] for name, value in recorded.items()}, largest)


def largest_neurons(neurons: Float[Tensor, "1 T M"], rows: list[int]) -> Float[Tensor, "3 R N"]:
    """The neurons with the largest absolute values: numbers, values, and how many are above a tenth of the largest."""
    neurons = neurons[0, rows]
    sizes = neurons.abs()
    largest, ids = sizes.topk(min(LARGEST_NEURONS, neurons.shape[-1]))
    active = (sizes > largest[:, :1] / 10).sum(-1, keepdim=True).expand_as(ids)
    return torch.stack([ids.double(), neurons.gather(-1, ids).double(), active.double()])
