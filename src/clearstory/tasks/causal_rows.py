"""Rows of a decoder of which only some tokens are predicted: the answers in a chat, a summary after its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import nn

from clearstory.errors import BadSetting
from clearstory.generation.decoding_batch import model_device
from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, LanguageModel, TokenBatch, inference_mode, output_weight
from clearstory.tasks.prediction_batches import batches_of_tokens
from clearstory.training.batches import Batch
from clearstory.training.objectives.base import LossTerm, LossTerms


@dataclass(frozen=True)
class CausalRow:
    """One sequence of a decoder, one row of a batch.

    Args:
        ids: token ids.
        predicted: for each token, whether it is a target; always false for the first token.
        example: index of its example.
    """

    ids: tuple[int, ...]
    predicted: tuple[bool, ...]
    example: int

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.predicted) > 0, (len(self.ids), len(self.predicted))
        assert not self.predicted[0], "nothing precedes the first token, so it cannot be predicted"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.ids)


MICRO_BATCH_TOKENS = 2048
"""Tokens of a forward pass in training, padding included: what SmolLM2-135M keeps of them for its gradient is 3 GB."""


@dataclass(frozen=True)
class CausalBatch(Batch):
    """A batch of rows, whose micro-batches have a limited number of tokens: its memory is that of the longest row."""

    def split(self, parts: int) -> list[Self]:
        """The batch in micro-batches, at most `parts` unless their tokens are too many."""
        rows, length = self.tokens.ids.shape
        return super().split(min(rows, max(parts, -(-rows // max(1, MICRO_BATCH_TOKENS // max(1, length))))))


def causal_batch(rows: Sequence[CausalRow]) -> CausalBatch:
    """Rows as a batch: every token but the last as input, (B, T), and the next one as target where it is predicted."""
    tokens = TokenBatch.from_sequences([row.ids[:-1] for row in rows])
    targets = torch.full_like(tokens.ids, IGNORE_INDEX)
    for row, own in zip(rows, targets, strict=True):
        wanted = [id if predicted else IGNORE_INDEX for id, predicted in zip(row.ids, row.predicted, strict=True)]
        own[: row.length - 1] = torch.tensor(wanted[1:], dtype=torch.long)
    return CausalBatch(tokens, targets)


def count_predicted(batch: Batch) -> dict[str, int]:
    """Number of targets of `causal_loss`, known before the forward pass."""
    return {"target": int((batch.targets != IGNORE_INDEX).sum())}


def causal_loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> LossTerms:
    """The summed negative log-likelihood of a batch's targets in nats.

    `label_smoothing` is the share of each target spread over the vocabulary (Szegedy et al. 2016, section 7). Logits
    are computed of the predicted tokens alone.
    """
    count = count_predicted(batch)["target"]
    decoder = cast(LanguageModel, model)
    if not label_smoothing:
        nats, _ = decoder.token_nll(batch.tokens, batch.targets)
        return {"target": LossTerm(nats.sum(), count)}
    weight = output_weight(decoder)
    if weight is None or getattr(decoder, "has_hashed_logits", False):
        raise BadSetting(
            f"training.label_smoothing is {label_smoothing:g}, but this model has no plain softmax; leave it out"
        )
    hidden, _ = decoder.forward(batch.tokens)
    smoothed = cross_entropy.linear_cross_entropy(hidden, weight, batch.targets, smoothing=label_smoothing)
    return {"target": LossTerm(smoothed.sum(), count)}


def row_nats(model: nn.Module, rows: Sequence[CausalRow]) -> list[tuple[float, int]]:
    """Negative log-likelihood of each row's predicted tokens in nats, and their number, in the order of the rows.

    Computed in batches of rows of similar length, by a model in inference mode.
    """
    device, found = model_device(model), [(0.0, 0)] * len(rows)
    order = sorted((index for index, row in enumerate(rows) if any(row.predicted)), key=lambda at: rows[at].length)
    with inference_mode(model):
        for indices in batches_of_tokens(order, rows, len(rows)):
            batch: Any = causal_batch([rows[index] for index in indices]).to(device)
            nats, _ = cast(LanguageModel, model).token_nll(batch.tokens, batch.targets)
            counts = (batch.targets != IGNORE_INDEX).sum(1)
            found_here = zip(nats.double().sum(1).tolist(), counts.tolist(), strict=True)
            for index, pair in zip(indices, found_here, strict=True):
                found[index] = pair
    return found
