"""DecodingBatch: the sequences that an engine decodes, in one state of the model or in slots of one KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.models.base import LanguageModel, State, TokenBatch
from clearstory.models.transformer.cache import KVCache


class DecodingBatch(Protocol):
    """Sequences that read one token each at a step; others join after their prompts, and any may leave."""

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""

    def add(self, state: Any) -> None:
        """Add the sequences of a state after the others."""

    def state(self, index: int) -> State | None:
        """The state of one sequence; None where it is no part that can be taken out."""

    def step(self, ids: Sequence[int]) -> Float[Tensor, "R K"]:
        """The hidden states after one more token of every sequence, (R, K)."""

    def select(self, kept: Sequence[int]) -> None:
        """Keep these of the sequences, in this order."""


def decoding_batch(model: LanguageModel, batched: bool | None = None) -> DecodingBatch:
    """An empty batch of this model.

    `batched`: whether a Transformer decodes over one KV cache for all sequences; None: on a CUDA device.
    """
    device = model_device(model)
    if batched is None:
        batched = device.type == "cuda"
    if batched:
        from clearstory.models.transformer.batched_decoding import can_batch

        if can_batch(model):
            return CacheBatch(model, device)
    return StateBatch(model, device)


def model_device(model: object) -> torch.device:
    """The device of a model's weights."""
    if isinstance(model, torch.nn.Module):
        weight = next(iter(model.parameters()), None)
        if weight is not None:
            return weight.device
    return torch.device("cpu")


class StateBatch:
    """Sequences in one state, of any model."""

    def __init__(self, model: LanguageModel, device: torch.device) -> None:
        self.model, self.device = model, device
        self.states: list[State] = []  # of sequences that were added together; joined at the next step

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return [length for state in self.states for length in state.lengths]

    def add(self, state: State) -> None:
        """Add the sequences of a state after the others."""
        self.states.append(state)

    def state(self, index: int) -> State:
        """The state of one sequence."""
        return self.joined().select([index])

    def step(self, ids: Sequence[int]) -> Float[Tensor, "R K"]:
        """The hidden states after one more token of every sequence, (R, K)."""
        hidden, state = self.model.forward(TokenBatch(torch.tensor(ids, device=self.device)[:, None]), self.joined())
        assert state is not None
        self.states = [state]
        return hidden[:, -1]

    def select(self, kept: Sequence[int]) -> None:
        """Keep these of the sequences, in this order."""
        self.states = [self.joined().select(kept)] if kept else []

    def joined(self) -> State:
        """One state of all sequences."""
        return self.states[0] if len(self.states) == 1 else type(self.states[0]).join(self.states)


class CacheBatch:
    """Sequences of a Transformer in slots of one KV cache, for devices where launching a kernel takes longer than most
    kernels run.
    """

    def __init__(self, model: LanguageModel, device: torch.device) -> None:
        from clearstory.models.transformer.batched_decoding import BatchedDecoder

        self.model, self.device = model, device
        self.decoder = BatchedDecoder(cast(Any, model))

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return self.decoder.lengths

    def add(self, state: KVCache) -> None:
        """Add the sequences of a cache after the others."""
        self.decoder.add(state)

    def state(self, index: int) -> None:
        """None: the cache of all sequences is one."""

    def step(self, ids: Sequence[int]) -> Float[Tensor, "R K"]:
        """The hidden states after one more token of every sequence, (R, K)."""
        return self.decoder.step(ids)

    def select(self, kept: Sequence[int]) -> None:
        """Keep these of the sequences, in this order."""
        self.decoder.select(kept)
