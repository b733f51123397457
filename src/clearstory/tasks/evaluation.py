"""TaskEvaluation: the scores of a model on the labeled examples of a task. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TaskEvaluation:
    """The scores of a model on the examples of a task.

    Args:
        task: name of the task.
        data: name of the examples.
        examples: number of examples.
        loss: mean loss.
        metrics: metrics by name.
        intervals: 95 % interval of each metric, by bootstrap over examples.
        details: scores of each label and further contents of the report, as values for JSON.
    """

    task: str
    data: str
    examples: int
    loss: float
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The scores as a dictionary for JSON."""
        return {**asdict(self), "intervals": {name: list(ends) for name, ends in self.intervals.items()}}
