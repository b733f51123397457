"""Comparison of a model with its conversion: negative log-likelihoods of generated and of random tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearstory.errors import CorruptFile
from clearstory.formats.folders import OpenedModel
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability, has_capability

NATS_TOLERANCE = 1e-5
"""Largest accepted difference of a token's negative log-likelihood in nats: numbers in ARPA files have eight digits."""

SEQUENCES, SEQUENCE_LENGTH = 8, 32
"""Sequences of generated tokens, and as many of random ones, that are compared."""


@dataclass(frozen=True)
class TokenMapping:
    """The tokens of a model as those of its conversion.

    Args:
        ids: id of each token in the conversion, (V,).
        same_context: whether each token has the same effect as context, (V,).
        same_target: whether each token is predicted with the same probability, (V,).
    """

    ids: torch.Tensor
    same_context: torch.Tensor
    same_target: torch.Tensor

    @classmethod
    def identity(cls, original: OpenedModel) -> TokenMapping:
        """The mapping of a conversion with the same tokens."""
        everywhere = torch.ones(original.model.vocab, dtype=torch.bool)
        return cls(torch.arange(original.model.vocab), everywhere, everywhere)


def check_nats(path: Path, tokens: int, difference: float) -> tuple[int, float]:
    """The two numbers of `compare_nats`. Raises CorruptFile if the difference is not from rounding."""
    if not difference <= NATS_TOLERANCE:
        raise CorruptFile(
            f"the probabilities of {path} differ from the original: one of {tokens:,} tokens differs by "
            f"{difference:.2g} nats; do not use it, and please report this"
        )
    return tokens, difference


def compare_nats(original: OpenedModel, converted: OpenedModel, mapping: TokenMapping) -> tuple[int, float]:
    """The number of compared tokens, and the largest difference of their negative log-likelihoods in nats."""
    model: Any = original.model
    length = SEQUENCE_LENGTH if model.context is None else min(SEQUENCE_LENGTH, model.context + 1)
    sequences = random_ids(model, length)
    if has_capability(model, Capability.CLASSIFIER):
        return compare_labels(model, converted.model, sequences[:, :-1])
    if has_capability(model, Capability.CAUSAL):
        sequences = torch.cat([generated_ids(model, length), sequences])
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    source = {}
    if has_capability(model, Capability.SOURCE):
        source = {"source": TokenBatch(random_ids(model, length).repeat(2, 1))}
    with torch.inference_mode():
        before, _ = model.token_nll(TokenBatch(inputs), targets, **source)
        after, _ = converted.model.token_nll(TokenBatch(mapping.ids[inputs]), mapping.ids[targets], **source)
    # Nothing can be compared after a token that has another effect as context.
    compared = mapping.same_context[inputs].cumprod(1).bool() & mapping.same_target[targets]
    differences = torch.where(before == after, 0.0, before.double() - after.double()).abs()[compared]
    return int(compared.sum()), float(differences.max()) if len(differences) else float("nan")


@torch.inference_mode()
def compare_labels(model: Any, converted: Any, ids: torch.Tensor) -> tuple[int, float]:
    """The number of tokens, and the largest difference of two logits of labels: probabilities differ by less."""
    difference = model.class_logits(TokenBatch(ids)).double() - converted.class_logits(TokenBatch(ids)).double()
    return ids.numel(), float(difference.abs().max())


def generated_ids(model: Any, length: int) -> torch.Tensor:
    """Sequences sampled from the model itself, (SEQUENCES, length): tokens of high probability."""
    engine = Engine(model)
    start = model.config.start_token_id or 0
    has_source = has_capability(model, Capability.SOURCE)
    sources = random_ids(model, length).tolist() if has_source else [None] * SEQUENCES
    sequences = {
        engine.add([start], Sampling(max_tokens=length, seed=seed), source=source): [start]
        for seed, source in enumerate(sources)
    }
    while engine.has_unfinished:
        for output in engine.next_tokens():
            sequences[output.request].append(output.token.id)
    return torch.tensor(list(sequences.values()))[:, :length]


def random_ids(model: Any, length: int) -> torch.Tensor:
    """Sequences of uniformly random ids, (SEQUENCES, length): tokens of low probability."""
    ids = np.random.default_rng(1).integers(model.vocab, size=(SEQUENCES, length))
    return torch.from_numpy(ids)
