"""Masked: tell the words that are hidden, and whether one text follows another. Devlin et al. 2019, section 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.models.base import IGNORE_INDEX, TokenSequences, TokenBatch, State
from clearstory.training.batches import Batch, Rows, Windows
from clearstory.training.masking import Masking
from clearstory.training.objectives.base import Loss, Term
from clearstory.training.pairs import Pairs


@dataclass(frozen=True)
class MLM:
    """The sum of -log p(token | what is not hidden) over the hidden tokens; with `pairs`, and of -log p(the second text
    follows the first, or not) over pairs of texts. Each is a mean of its own, and the two are added.
    """

    masking: Masking
    pairs: bool = False

    def batches(
        self, rows: Rows, context: int, batch_size: int, seed: int, stateful: bool = False, align_documents: bool = False
    ) -> MaskedWindowBatches | Pairs:
        """Windows packed end to end; or pairs, of rows that are sentences, which begin with documents anyway."""
        if self.pairs:
            return Pairs(cast(TokenSequences, rows), context, batch_size, seed, self.masking)
        return MaskedWindowBatches(rows, context, batch_size, seed, self.masking, align_documents)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens to be told, and pairs."""
        counts = {"masked": int((batch.targets != IGNORE_INDEX).sum())}
        return counts if batch.is_not_next is None else {**counts, "next-sentence": len(batch.is_not_next)}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[Loss, None]:
        """Nats of all hidden tokens together, and of all pairs."""
        encoder, counts = cast(Any, model), self.counts(batch)
        hidden = encoder.encode(batch.tokens, batch.segments)
        loss = {"masked": Term(encoder.nats(hidden, batch.targets).sum(), counts["masked"])}
        if batch.is_not_next is not None:
            logits = encoder.relate(hidden)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            nats = F.cross_entropy(logits, batch.is_not_next, reduction="sum")
            loss["next-sentence"] = Term(nats, counts["next-sentence"])
        return loss, None


class MaskedWindowBatches:
    """`Windows` between [CLS] and [SEP], some of their tokens hidden; those are a function of (seed, number) too."""

    def __init__(
        self, rows: Rows, context: int, batch_size: int, seed: int, masking: Masking, align_documents: bool = False
    ) -> None:
        if context < 4:
            raise BadSetting(
                f"a context of {context} leaves nothing between [CLS] and [SEP]; set training.context to 4 or more"
            )
        self.windows = Windows(rows, context - 2, batch_size, seed, align_documents)
        self.masking = masking
        self.seed = seed
        self.per_epoch = self.windows.per_epoch

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        inner = self.windows.batch(number).tokens.ids.numpy()
        ids = np.pad(inner, ((0, 0), (1, 1)), constant_values=self.masking.last)
        ids[:, 0] = self.masking.first
        shown, targets = self.masking.draw(ids, np.random.default_rng([self.seed, 2, number]))
        return Batch(TokenBatch(torch.from_numpy(shown)), torch.from_numpy(targets))

    def continues(self, number: int) -> bool:
        """Never: windows are shuffled."""
        return False
