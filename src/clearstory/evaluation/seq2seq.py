"""Sequence-to-sequence evaluation: the loss of an encoder-decoder on targets, given their sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.metrics import Score
from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder

Seq2SeqModel = EncoderDecoder | RecurrentEncoderDecoder
"""A model of a target given its source."""


class Seq2SeqBatch(Protocol):
    """The parts of a training batch that sequence-to-sequence evaluation uses."""

    @property
    def tokens(self) -> TokenBatch:
        """Decoder inputs: the start token and the target shifted right, (B, T)."""

    @property
    def targets(self) -> Tensor:
        """Target ids, (B, T); IGNORE_INDEX at padding."""

    @property
    def source(self) -> TokenBatch | None:
        """Source ids, (B, S)."""

    def to(self, device: torch.device) -> Self:
        """The batch on `device`."""


def target_nll(model: Seq2SeqModel, batch: Seq2SeqBatch, label_smoothing: float = 0.0) -> tuple[Float[Tensor, ""], int]:
    """The summed negative log-likelihood of a batch's targets in nats, differentiable, and the number of targets.

    `label_smoothing` is the share of each target spread over the vocabulary (Szegedy et al. 2016, section 7).
    """
    hidden, _ = model(batch.tokens, source=batch.source)
    nats = cross_entropy.linear_cross_entropy(
        hidden, model.output_weight, batch.targets, model.unembedding_bias, label_smoothing
    )
    return nats.sum(), int((batch.targets != IGNORE_INDEX).sum())


@torch.no_grad()
def score_targets(model: Seq2SeqModel, batches: Iterable[Seq2SeqBatch]) -> Score:
    """Summed negative log-likelihood of all targets, without label smoothing, and their number."""
    device = next(model.parameters()).device
    score = Score()
    for batch in batches:
        nats, n_targets = target_nll(model, batch.to(device))
        score += Score(nats=float(nats.double()), tokens=n_targets)
    return score
