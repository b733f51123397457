"""CountTrainer: fits a model by counting or EM; each step is one pass over the data.

An n-gram model counts one order a round and is complete after the last. An HMM improves with every round of Baum-Welch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from clearstory.models.base import CountModel, FitProgress, LanguageModel, TokenSequences
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.device import deterministic
from clearstory.training.base import StepResult, load_weights
from clearstory.training.settings import TrainingSettings


class CountTrainer:
    """Fits a CountModel on one split, round by round.

    Everything a round depends on is in the model, so a run that resumes from a checkpoint takes the same rounds. Where
    the model fixes the number of rounds, only the last one leaves a state to resume from: a run stopped before it
    starts again. Raises what the model's `accept` does, before anything is counted.
    """

    def __init__(self, model: nn.Module, dataset: TokenSequences, settings: TrainingSettings, *, steps: int) -> None:
        self.model = model
        self.count_model = cast(CountModel, model)
        self.count_model.check_data(dataset)
        self.dataset = dataset
        self.settings = settings
        if has_capability(model, Capability.NGRAM_COUNTS):
            cast(Any, model).sort_memory_mb = settings.sort_memory
        self.context = settings.context or cast(LanguageModel, model).context or 256
        self.step = 0
        self.tokens = 0
        self.plans: list[tuple[int, int]] = [(0, self.count_model.rounds or steps)]
        self.rounds: Iterator[FitProgress] | None = None

    @property
    def steps(self) -> int:
        """Total rounds of the run as planned now."""
        return self.plans[-1][1]

    @property
    def tokens_per_step(self) -> int:
        """Tokens of the split: each round reads all of it."""
        return len(self.dataset.ids)

    @property
    def length(self) -> str:
        """The total rounds in words."""
        return f"{self.steps:,} round{'s' * (self.steps > 1)} of counting"

    @property
    def default_eval_steps(self) -> int:
        """1: after every round; or the number of rounds that make a complete model."""
        return self.count_model.rounds or 1

    @property
    def default_eval_tokens(self) -> None:
        """None: as many as take a tenth of the time."""

    @property
    def final_seconds(self) -> float:
        """0: the last step completes the model."""
        return 0.0

    @property
    def complete_after_each_step(self) -> bool:
        """Whether each round makes a complete model; False where the rounds together make one."""
        return self.count_model.rounds is None

    def set_total_steps(self, steps: int) -> None:
        """Change the total rounds of the run, where the model does not fix them."""
        self.plans.append((self.step, self.count_model.rounds or max(steps, self.step)))

    def measure_step_time(self) -> None:
        """None: measuring would cost a whole round."""

    def averaged_weights(self) -> AbstractContextManager[None]:
        """A block that changes nothing: counts are not averaged."""
        return nullcontext()

    def __iter__(self) -> Iterator[StepResult]:
        while self.step < self.steps:
            yield self.train_step()

    def train_step(self) -> StepResult:
        """Take one round."""
        started = time.perf_counter()
        if self.rounds is None:
            torch.manual_seed((self.settings.seed * 1_000_003 + self.step) % 2**63)
            self.rounds = self.count_model.fit(self.dataset, self.step)
        weight = next(iter(self.model.parameters()), None)
        with nullcontext() if weight is None else deterministic(weight.device):
            progress = next(self.rounds)
        self.step += 1
        self.tokens += progress.tokens
        if progress.converged:
            self.set_total_steps(self.step)
        seconds = time.perf_counter() - started
        return StepResult(self.step, self.steps, progress.nats, None, None, self.tokens, seconds, progress.note)

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model's tensors, and the step, tokens and plans."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return tensors, {"step": self.step, "tokens": self.tokens, "plans": self.plans}

    def load_checkpoint_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from a saved state. Raises CheckpointMismatch when it belongs to another model."""
        step = int(values["step"])
        if self.count_model.rounds is not None and step < self.count_model.rounds:
            return
        load_weights(self.model, tensors)
        self.rounds = None
        self.step, self.tokens = step, int(values["tokens"])
        self.plans = [(int(step), int(steps)) for step, steps in values["plans"]]
