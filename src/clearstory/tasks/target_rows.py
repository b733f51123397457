"""Rows of a source with its target, for an encoder-decoder and for a decoder, and their loss: only the target is
predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from clearstory.evaluation.seq2seq import target_nll
from clearstory.generation.decoding_batch import model_device
from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, inference_mode
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.tasks.causal_rows import CausalRow, causal_batch, causal_loss, row_nats
from clearstory.tasks.prediction_batches import PREDICTION_TOKENS
from clearstory.training.batches import Batch
from clearstory.training.objectives.base import LossTerm, LossTerms
from clearstory.training.objectives.seq2seq import seq2seq_batch


@dataclass(frozen=True)
class Seq2SeqRow:
    """A source and a target of an encoder-decoder, which are padded apart; the target ends with its end token."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    example: int

    @property
    def parts(self) -> tuple[int, int]:
        """Number of tokens of source and target."""
        return len(self.source), len(self.target)

    @property
    def length(self) -> int:
        """Number of tokens of both."""
        return sum(self.parts)


RowT = TypeVar("RowT", Seq2SeqRow, CausalRow)


class TargetRows(Protocol[RowT]):
    """How rows are made, batched and scored."""

    def row(self, source: Sequence[int], target: Sequence[int], example: int) -> RowT:
        """The row of a source, with all that is read before the target, and of a target with its end token."""

    def batch(self, rows: Sequence[RowT]) -> Batch:
        """Rows as one padded batch."""

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> LossTerms:
        """The summed negative log-likelihood of the targets' tokens, differentiable."""

    def nats(self, model: nn.Module, rows: Sequence[RowT]) -> list[tuple[float, int]]:
        """Negative log-likelihood of each row's target in nats, and its number of tokens."""


@dataclass(frozen=True)
class Seq2SeqTargets:
    """Targets of an encoder-decoder, by teacher forcing.

    Args:
        decoder_start_token_id: the token that targets are read after.
    """

    decoder_start_token_id: int

    def row(self, source: Sequence[int], target: Sequence[int], example: int) -> Seq2SeqRow:
        """The source and the target, apart."""
        return Seq2SeqRow(tuple(source), tuple(target), example)

    def batch(self, rows: Sequence[Seq2SeqRow]) -> Batch:
        """Sources and targets, each padded."""
        sources, targets = [row.source for row in rows], [row.target for row in rows]
        return seq2seq_batch(sources, targets, self.decoder_start_token_id)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> LossTerms:
        """The loss of all target tokens."""
        return {"target": LossTerm(*target_nll(cast(EncoderDecoder, model), batch, label_smoothing))}

    def nats(self, model: nn.Module, rows: Sequence[Seq2SeqRow]) -> list[tuple[float, int]]:
        """Nats of each target, in batches of similar length."""
        device, network = model_device(model), cast(EncoderDecoder, model)
        found = [(0.0, 0)] * len(rows)
        with inference_mode(model):
            for indices in batches_of_pairs(rows):
                batch = self.batch([rows[index] for index in indices]).to(device)
                hidden, _ = network(batch.tokens, source=batch.source)
                nats = cross_entropy.linear_cross_entropy(
                    hidden, network.output_weight, batch.targets, network.unembedding_bias
                )
                totals, counts = nats.double().sum(1).tolist(), (batch.targets != IGNORE_INDEX).sum(1).tolist()
                for index, total, count in zip(indices, totals, counts, strict=True):
                    found[index] = total, count
        return found


def batches_of_pairs(rows: Sequence[Seq2SeqRow]) -> list[list[int]]:
    """Indices of all rows, sorted by length, in batches of about PREDICTION_TOKENS tokens."""
    batches: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: rows[index].length):
        if not batches or (len(batches[-1]) + 1) * rows[index].length > PREDICTION_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


class CausalTargets:
    """Targets of a decoder, each after its prompt."""

    def row(self, source: Sequence[int], target: Sequence[int], example: int) -> CausalRow:
        """The prompt and the target in one sequence; only the target is predicted."""
        return CausalRow((*source, *target), (*[False] * len(source), *[True] * len(target)), example)

    def batch(self, rows: Sequence[CausalRow]) -> Batch:
        """Sequences, padded."""
        return causal_batch(rows)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> LossTerms:
        """The loss of the targets' tokens; logits are computed of them alone."""
        return causal_loss(model, batch, label_smoothing)

    def nats(self, model: nn.Module, rows: Sequence[CausalRow]) -> list[tuple[float, int]]:
        """Nats of each target, in batches of similar length."""
        return row_nats(model, rows)


def count_target_tokens(batch: Any) -> dict[str, int]:
    """Number of target tokens of a batch, known before the forward pass."""
    return {"target": int(torch.count_nonzero(batch.targets != IGNORE_INDEX))}
