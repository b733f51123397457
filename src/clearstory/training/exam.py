"""Exam: what a model that tells hidden tokens makes of other text, always the same text with the same tokens hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from clearstory.models.base import IGNORE_INDEX
from clearstory.training.batches import Rows
from clearstory.training.objectives.mlm import MLM

SEED = 0
"""Of what is hidden: the same for every run, so that runs can be compared."""


@dataclass(frozen=True, kw_only=True)
class MaskedScore:
    """How an exam went: sums, to be added up.

    Args:
        nats: of all hidden tokens together.
        tokens: how many were hidden.
        read: how many tokens were read in all.
        pairs: pairs of texts that were shown.
        right: pairs of which it was said rightly whether the second follows the first.
    """

    nats: float = 0.0
    tokens: int = 0
    read: int = 0
    pairs: int = 0
    right: int = 0

    @property
    def accuracy(self) -> float | None:
        """Share of the pairs told rightly; None where there were none."""
        return self.right / self.pairs if self.pairs else None


@torch.no_grad()
def score_masked(
    model: nn.Module,
    objective: MLM,
    rows: Rows,
    context: int,
    *,
    limit: int | None = None,
    seed: int = SEED,
    batch_size: int = 16,
) -> MaskedScore:
    """One pass over the rows, or about `limit` tokens of them, drawn from all over."""
    encoder = cast(Any, model)
    device = encoder.embedding.weight.device
    if not objective.pairs:  # a window is no longer than the text
        context = min(context, max(4, len(rows.ids) + 1))
    batches = objective.batches(rows, context, batch_size, seed)
    left = batches.per_epoch
    marks: dict[str, int | float] = {"nats": 0.0, "tokens": 0, "read": 0, "pairs": 0, "right": 0}
    number = 0
    while left > 0 and (limit is None or marks["read"] < limit):
        batch = batches.batch(number).rows(0, left).to(device)
        hidden = encoder.encode(batch.tokens, batch.segments)
        # Sums are taken in float64: in fp32 the 10 millionth token would be rounded to whole nats.
        marks["nats"] += float(encoder.nats(hidden, batch.targets).double().sum())
        marks["tokens"] += int((batch.targets != IGNORE_INDEX).sum())
        marks["read"] += batch.size
        if batch.is_not_next is not None:
            marks["pairs"] += len(batch.is_not_next)
            marks["right"] += int((encoder.nsp_logits(hidden).argmax(-1) == batch.is_not_next).sum())
        left -= batch_size
        number += 1
    return MaskedScore(**cast(dict[str, Any], marks))
