"""Objective: what the model is asked to get right, and how wrong an answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from clearstory.models.base import State
from clearstory.training.batches import Batch, Batches, Rows


@dataclass(frozen=True)
class Term:
    """One part of a loss as a sum and a count, so that means are taken once, over everything.

    A mean of means weighs short batches too much: the bug of many trainers under gradient accumulation.
    """

    total: Tensor
    count: int
    weight: float = 1.0


Loss = dict[str, Term]


class Objective(Protocol):
    """How examples are made from tokens, and how wrong an answer is. One file each."""

    def batches(
        self, rows: Rows, context: int, batch_size: int, seed: int, stateful: bool = False, align_documents: bool = False
    ) -> Batches:
        """The batches of a split, in an order decided by the seed.

        carry: each goes on where the one before ended; else align: windows begin where documents do.
        """

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many answers each term will count, known before the forward pass: accumulation and ranks are exact."""

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[Loss, State | None]:
        """The terms of the loss on one batch."""
