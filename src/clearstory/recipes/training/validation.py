"""The validation split of a run, and how its objective evaluates the model on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from clearstory.training.objectives.base import Validation

DatasetT = TypeVar("DatasetT")
DatasetT_contra = TypeVar("DatasetT_contra", contravariant=True)


class Evaluator(Protocol[DatasetT_contra]):
    """The part of an objective that evaluates; datasets are token sequences, or the encoded rows of a task."""

    @property
    def loss_unit(self) -> str:
        """What the validation loss is a mean over."""

    def validate(
        self, model: nn.Module, dataset: DatasetT_contra, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """See `Objective.validate`."""

    def sample_source(self, dataset: DatasetT_contra, index: int, context: int) -> list[int] | None:
        """See `Objective.sample_source`."""


@dataclass(frozen=True)
class ValidationSplit(Generic[DatasetT]):
    """The validation split of a run.

    Args:
        dataset: its tokens, or the rows of a task.
        objective: the training objective, which defines the validation.
        lossy_reason: the reason why there are no bits per byte on this text, or None.
    """

    dataset: DatasetT
    objective: Evaluator[DatasetT]
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
