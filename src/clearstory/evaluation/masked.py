"""Masked evaluation: the loss of an encoder on masked tokens, and its accuracy on pairs of sentences.

Devlin et al. 2019, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.transformer.encoder import Encoder


class MaskedBatch(Protocol):
    """The parts of a training batch that masked evaluation uses."""

    @property
    def tokens(self) -> TokenBatch:
        """Input ids, some of them masked, (B, T)."""

    @property
    def targets(self) -> Tensor:
        """Original ids of the masked tokens, (B, T); IGNORE_INDEX elsewhere."""

    @property
    def token_type_ids(self) -> Tensor | None:
        """0 for tokens of the first text and 1 for those of the second, (B, T)."""

    @property
    def is_not_next(self) -> Tensor | None:
        """1 where the second text does not follow the first, (B,)."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens, padding not counted."""

    def to(self, device: torch.device) -> Self:
        """The batch on `device`."""


@dataclass(frozen=True, kw_only=True)
class MaskedScore:
    """Sums over the batches of a masked evaluation.

    Args:
        nats: negative log-likelihood of all masked tokens.
        tokens: number of masked tokens.
        n_read: number of tokens read.
        pairs: number of pairs of texts.
        correct_pairs: number of pairs for which it was predicted correctly whether the second text follows the first.
    """

    nats: float = 0.0
    tokens: int = 0
    n_read: int = 0
    pairs: int = 0
    correct_pairs: int = 0

    @property
    def accuracy(self) -> float | None:
        """Next-sentence accuracy, between 0 and 1; None if there were no pairs."""
        return self.correct_pairs / self.pairs if self.pairs else None


@torch.no_grad()
def score_masked(model: Encoder, batches: Iterable[MaskedBatch], limit: int | None = None) -> MaskedScore:
    """The sums over `batches`, stopping after about `limit` tokens read."""
    device = model.embedding.weight.device
    score = MaskedScore()
    for batch in batches:
        batch = batch.to(device)
        hidden = model.encode(batch.tokens, batch.token_type_ids)
        score = replace(
            score,
            # Summed in float64: in fp32 the 10 millionth token would be rounded to whole nats.
            nats=score.nats + float(model.masked_nll(hidden, batch.targets).double().sum()),
            tokens=score.tokens + int((batch.targets != IGNORE_INDEX).sum()),
            n_read=score.n_read + batch.n_tokens,
        )
        if batch.is_not_next is not None:
            correct = int((model.nsp_logits(hidden).argmax(-1) == batch.is_not_next).sum())
            score = replace(
                score, pairs=score.pairs + len(batch.is_not_next), correct_pairs=score.correct_pairs + correct
            )
        if limit is not None and score.n_read >= limit:
            break
    return score
