"""The validation split of a run, and how its objective evaluates the model on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from clearstory.text.token_dataset import TokenDataset
from clearstory.training.objectives.base import Objective, Validation


@dataclass(frozen=True)
class ValidationSplit:
    """The validation split of a run.

    Args:
        dataset: its tokens.
        objective: the training objective, which defines the validation.
        lossy_reason: the reason why there are no bits per byte on this text, or None.
    """

    dataset: TokenDataset
    objective: Objective
    lossy_reason: str | None = None

    def evaluate(self, model: nn.Module, context: int, limit: int | None, spread: bool = True) -> Validation:
        """Loss and further metrics on about `limit` tokens of the split; see `Objective.validate`."""
        validation = self.objective.validate(model, self.dataset, context, limit, spread)
        if self.lossy_reason is None or validation.score.bytes is None:
            return validation
        return Validation(validation.score.without_bytes(self.lossy_reason), validation.metrics)

    def sample_source(self, index: int, context: int) -> list[int] | None:
        """Source ids to generate a sample from; None for models without a source."""
        return self.objective.sample_source(self.dataset, index, context)

    def record(self, validation: Validation | None) -> dict[str, Any]:
        """What metrics.jsonl records of an evaluation; no numbers where no text is held out."""
        if validation is None:
            return {"nats_per_token": None, "bits_per_byte": None, "unit": self.objective.loss_unit}
        score = validation.score
        return {
            "nats_per_token": score.nats_per_token,
            "bits_per_byte": score.bits_per_byte,
            "unit": self.objective.loss_unit,
            **validation.metrics,
        }
