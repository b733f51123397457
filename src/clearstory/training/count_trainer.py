"""Rounds: learning by counting, with the face of a Trainer; each step is one finished round.

An n-gram counts one order a round and is ready after the last; an HMM gets better with every round of Baum-Welch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from clearstory.models.base import CountModel, TokenSequences, FitProgress
from clearstory.models.machine import repeatable
from clearstory.training.base import StepResult, load_weights
from clearstory.training.settings import TrainingSettings


class CountTrainer:
    """Teaches a CountModel model on one split, round by round.

    Everything that a round depends on is in the model, so a run that goes on from a checkpoint takes the same rounds.
    Where the rounds are numbered by the model itself, only the last leaves something to go on from: a run that was
    stopped before it begins anew. Raises what the model's `accept` does, before anything is counted.
    """

    def __init__(self, model: nn.Module, rows: TokenSequences, settings: TrainingSettings, *, steps: int) -> None:
        self.model = model
        self.counted = cast(CountModel, model)
        self.counted.accept(rows)
        self.rows = rows
        self.settings = settings
        self.context = settings.context or getattr(model, "context", None) or 256
        self.step = 0
        self.tokens = 0
        self.plans: list[tuple[int, int]] = [(0, self.counted.rounds or steps)]
        self.going: Iterator[FitProgress] | None = None

    @property
    def steps(self) -> int:
        """Rounds of the run as planned now."""
        return self.plans[-1][1]

    @property
    def tokens_per_step(self) -> int:
        """Each round reads all of the text."""
        return len(self.rows.ids)

    @property
    def plan(self) -> str:
        """The rounds in words."""
        return f"{self.steps:,} round{'s' * (self.steps > 1)} of counting"

    @property
    def eval_steps(self) -> int:
        """After every round, or when all of them have made the model."""
        return self.counted.rounds or 1

    def set_total_steps(self, steps: int) -> None:
        """From here on the run is this long, where that is for us to say."""
        self.plans.append((self.step, self.counted.rounds or max(steps, self.step)))

    def probe(self) -> None:
        """A round is not tried out: the first ones tell how long it takes."""

    def averaged(self) -> AbstractContextManager[None]:
        """Counts are the model to be used as they are."""
        return nullcontext()

    def __iter__(self) -> Iterator[StepResult]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> StepResult:
        """One round."""
        began = time.perf_counter()
        if self.going is None:
            torch.manual_seed((self.settings.seed * 1_000_003 + self.step) % 2**63)
            self.going = self.counted.fit(self.rows, self.step)
        weight = next(iter(self.model.parameters()), None)
        with nullcontext() if weight is None else repeatable(weight.device):
            fitted = next(self.going)
        self.step += 1
        self.tokens += fitted.tokens
        seconds = time.perf_counter() - began
        return StepResult(self.step, self.steps, fitted.nats, None, None, self.tokens, seconds, fitted.note)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model and where the run stands."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return tensors, {"step": self.step, "tokens": self.tokens, "plans": self.plans}

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from a saved state. Raises CheckpointMismatch when it belongs to another model."""
        step = int(values["step"])
        if self.counted.rounds is not None and step < self.counted.rounds:
            return
        load_weights(self.model, tensors)
        self.going = None
        self.step, self.tokens = step, int(values["tokens"])
        self.plans = [(int(step), int(steps)) for step, steps in values["plans"]]
