"""Causal: predict each next token. Bengio et al. 2003; Radford et al. 2018, eq. 1."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from clearstory.models.base import IGNORE_INDEX, State
from clearstory.training.batches import Batch, Batches, Rows, StreamBatches, Windows
from clearstory.training.objectives.base import Loss, Term


class Causal:
    """The sum of -log p(next token | those before it), over all tokens."""

    def batches(
        self, rows: Rows, context: int, batch_size: int, seed: int, stateful: bool = False, align_documents: bool = False
    ) -> Batches:
        """Shuffled windows, packed end to end; or streams for a model that carries its memory over."""
        if stateful:
            return StreamBatches(rows, context, batch_size, seed)
        return Windows(rows, context, batch_size, seed, align_documents)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens to be predicted."""
        return {"next": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[Loss, State | None]:
        """Nats of all targets together."""
        nats, state = cast(Any, model).token_nll(batch.tokens, batch.targets, state)
        return {"next": Term(nats.sum(), self.counts(batch)["next"])}, state
