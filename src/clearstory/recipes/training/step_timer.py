"""StepTimer: speed and remaining time of a run."""

from __future__ import annotations

import time

from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.training.base import BaseTrainer, StepResult


class StepTimer:
    """Speed of the steps of a run since it was started or resumed."""

    def __init__(self, trainer: BaseTrainer, budget: TimeBudget) -> None:
        self.trainer = trainer
        self.budget = budget
        self.first_step = trainer.step
        self.started = time.monotonic()
        self.elapsed_at_start = budget.elapsed()
        self.tokens_per_second = 0.0

    def update(self, result: StepResult) -> None:
        """Update tokens_per_second, an exponential moving average."""
        now = self.trainer.tokens_per_step / result.seconds
        self.tokens_per_second = now if not self.tokens_per_second else 0.9 * self.tokens_per_second + 0.1 * now

    def eta(self) -> float:
        """Estimated seconds until the last step."""
        steps_taken = self.trainer.step - self.first_step
        return (self.trainer.steps - self.trainer.step) * (time.monotonic() - self.started) / steps_taken

    def budget_per_step(self) -> float:
        """Seconds of the time budget per step, evaluations included."""
        return (self.budget.elapsed() - self.elapsed_at_start) / (self.trainer.step - self.first_step)
