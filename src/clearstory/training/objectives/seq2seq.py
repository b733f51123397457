"""Rewrite and Denoise: write a target from a source, reading what should have been written so far (teacher forcing).

Sutskever et al. 2014; Vaswani et al. 2017; from running text alone, Raffel et al. 2020, section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from clearstory.metrics import Score
from clearstory.models import unembed
from clearstory.models.base import IGNORE_INDEX, TokenSequences, State
from clearstory.training.batches import Batch, Rows
from clearstory.training.objectives.base import Loss, Term
from clearstory.training.sources import Paired, Spans, window_of

CONDITIONAL = (
    "a target is foreseen from its source, so its bits say nothing of how well a text is foreseen by itself; "
    "compare in nats per token, or what is written with what should be"
)
PARTIAL = (
    "only what was dropped is foreseen, with the rest of the text in view, so the nats add up to no probability of "
    "the text; compare in nats per token"
)
"""Why there are no bits per byte."""


@dataclass(frozen=True)
class Seq2Seq:
    """The sum of -log p(token | source, those before it), over all tokens of targets, their end included.

    Args:
        begin: the token that targets are read after.
        smoothing: share of each target spread over the vocabulary while learning (Szegedy et al. 2016, section 7).
    """

    begin: int
    smoothing: float = 0.0

    reason = CONDITIONAL

    def batches(
        self, rows: Rows, context: int, batch_size: int, seed: int, stateful: bool = False, align_documents: bool = False
    ) -> Paired:
        """Pairs of like lengths."""
        return Paired(cast(TokenSequences, rows), context, batch_size, seed, self.begin)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens to be written."""
        return {"target": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[Loss, None]:
        """Nats of all targets together, smoothed."""
        return {"target": written(model, batch, self.smoothing)}, None

    def look(self, model: nn.Module, rows: Rows, context: int, limit: int | None = None) -> Score:
        """Nats of the targets of other pairs, not smoothed; of all, or of some from all over."""
        pairs = Paired(cast(TokenSequences, rows), context, 1, 0, self.begin)
        pairs.batch_size = 32  # the last batch may be smaller here
        return total(model, pairs.in_order(limit)).without_bytes(self.reason)


@dataclass(frozen=True)
class SpanCorruption:
    """The same for targets that were dropped from running text.

    Args:
        begin: the token that targets are read after.
        end: the token that ends sources and targets.
        sentinels: what stands for what was dropped.
        smoothing: as in `Rewrite`.
    """

    begin: int
    end: int
    sentinels: tuple[int, ...]
    smoothing: float = 0.0

    reason = PARTIAL

    def batches(
        self, rows: Rows, context: int, batch_size: int, seed: int, stateful: bool = False, align_documents: bool = False
    ) -> Spans:
        """Windows with spans dropped."""
        return Spans(rows, context, batch_size, seed, self.begin, self.end, self.sentinels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens to be written."""
        return {"target": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[Loss, None]:
        """Nats of all that was dropped together, smoothed."""
        return {"target": written(model, batch, self.smoothing)}, None

    def look(self, model: nn.Module, rows: Rows, context: int, limit: int | None = None) -> Score:
        """Nats of what is dropped from other text, always the same spans, not smoothed."""
        have = len(rows.ids)
        while context > 5 and window_of(context) > have - 1:
            context -= 1
        batch_size = max(1, min(16, (have - 1) // window_of(context)))
        spans = self.batches(rows, context, batch_size, 0)
        count = spans.per_epoch if limit is None else max(1, min(spans.per_epoch, limit // spans.size))
        return total(model, map(spans.batch, range(count))).without_bytes(self.reason)


def written(model: nn.Module, batch: Batch, smoothing: float) -> Term:
    """The nats of a batch's targets, and how many there are."""
    writer = cast(Any, model)
    hidden, _ = writer.forward(batch.tokens, source=batch.source)
    nats = unembed.nats(hidden, writer.output_weight, batch.targets, writer.unembedding_bias, smoothing)
    return Term(nats.sum(), int((batch.targets != IGNORE_INDEX).sum()))


@torch.no_grad()
def total(model: nn.Module, batches: Iterable[Batch]) -> Score:
    """The plain nats of all targets of all batches, and their number."""
    device = next(model.parameters()).device
    score = Score()
    for batch in batches:
        term = written(model, batch.to(device), 0.0)
        score += Score(nats=float(term.total.double()), tokens=term.count)
    return score
