"""MixtureTrainer: trains the experts of a mixture with one budget, and fits its gate on held-out text.

1. A part of the training text is held out (see `gate_fitting`).
2. n-gram models count the rest; networks are trained on it, in each step all of them.
3. Before an evaluation the gate is fitted on the held-out part.
4. After the last step n-gram models count all of the training text; networks and gate stay as they are.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from clearstory.models.base import TokenSequences
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.mixture.model import Mixture
from clearstory.training.base import StepResult, load_weights
from clearstory.training.gate_fitting import STEPS, fit_gate, split_held_out
from clearstory.training.objectives.base import Objective
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

INTERIM_TOKENS, INTERIM_STEPS = 2**11, 100
"""Number of held-out tokens for fitting the gate during training, and number of steps."""

EVAL_TOKENS = 2**12
"""Validation tokens per evaluation."""

TIMING_TOKENS = 2**10
"""Number of held-out tokens processed to estimate the time for all of them."""


class MixtureTrainer:
    """Trains a mixture on one split.

    Args:
        model: the mixture.
        objective: next-token prediction.
        dataset: the training split.
        settings: those of each expert, in order; those of n-gram models are not used.
        steps: optimizer steps of each network.
    """

    def __init__(
        self,
        model: Mixture,
        objective: Objective,
        dataset: TokenSequences,
        settings: Sequence[TrainingSettings],
        *,
        steps: int,
    ) -> None:
        self.model: nn.Module = model
        self.mixture = model
        self.settings = settings[0]
        self.dataset = dataset
        self.start_token_id: int | None = getattr(objective, "start_token_id", None)
        self.read, self.held_out = split_held_out(dataset, self.settings.seed)
        self.counters: list[Any] = [each for each in model.models if has_capability(each, Capability.NGRAM_COUNTS)]
        for each in self.counters:
            each.check_data(self.read)
        self.trainers = {
            at: Trainer(each, objective, self.read, settings[at], steps=steps)
            for at, each in enumerate(model.models)
            if each not in self.counters
        }
        self.context = max((each.context for each in self.trainers.values()), default=256)
        self.counted: str | None = None  # what n-gram models have counted: "read" or "all" of the text
        self.fitted: tuple[int, bool] | None = None  # step at which the gate was fitted, and whether on all
        self.final_seconds = 0.0
        self.step = 0
        self.tokens = 0
        self.plans: list[tuple[int, int]] = [(0, steps if self.trainers else 1)]

    @property
    def networks(self) -> list[Trainer]:
        """The trainers of the networks."""
        return list(self.trainers.values())

    @property
    def steps(self) -> int:
        """Total steps of the run as planned now."""
        return self.plans[-1][1]

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in each step by all networks."""
        return sum(each.tokens_per_step for each in self.networks) or len(self.read)

    @property
    def length(self) -> str:
        """The total steps in words."""
        return f"{self.steps:,} steps" if self.trainers else "1 round of counting"

    @property
    def default_eval_steps(self) -> int:
        """Steps between evaluations where the settings give none: each fits the gate, so there are four in the run."""
        return max(1, self.steps // 4)

    @property
    def default_eval_tokens(self) -> int:
        """Tokens of an evaluation where the settings give none."""
        return EVAL_TOKENS

    @property
    def complete_after_each_step(self) -> bool:
        """False: the gate is fitted at evaluations."""
        return False

    def set_total_steps(self, steps: int) -> None:
        """Change the total steps of the run; the schedules of all networks are stretched to it from here on."""
        self.plans.append((self.step, max(steps, self.step) if self.trainers else 1))
        for each in self.networks:
            each.set_total_steps(self.steps)

    def measure_step_time(self) -> float | None:
        """Seconds of a step, all networks together; also counts, and measures how long the end of the run will take."""
        if self.counted != "all":  # else the run has ended
            started = time.perf_counter()
            self.count("read")
            counted = time.perf_counter()
            gate = copy.deepcopy(self.mixture.gate.state_dict())
            tokens = fit_gate(self.mixture, self.held_out, self.start_token_id, TIMING_TOKENS, steps=1)
            read = time.perf_counter()
            fit_gate(self.mixture, self.held_out, self.start_token_id, 1, steps=INTERIM_STEPS)
            fitting = (time.perf_counter() - read) * STEPS / INTERIM_STEPS
            reading = (read - counted) * len(self.held_out) / max(1, tokens)
            self.final_seconds = counted - started + reading + fitting
            self.mixture.gate.load_state_dict(gate)
        return sum(each.measure_step_time() for each in self.networks) if self.trainers else None

    def count(self, part: str) -> None:
        """Fit the n-gram models to the text that is read, or to all of it, unless they are."""
        if self.counted != part:
            for each in self.counters:
                for _ in each.fit(self.read if part == "read" else self.dataset):
                    pass
            self.counted = part

    def __iter__(self) -> Iterator[StepResult]:
        while self.step < self.steps:
            yield self.train_step()

    def train_step(self) -> StepResult:
        """One step of each network; the loss is that of the first. The first step counts the n-grams, too."""
        started = time.perf_counter()
        self.count("read")
        results = [each.train_step() for each in self.networks]
        self.step += 1
        self.tokens += self.tokens_per_step
        first = results[0] if results else None
        return StepResult(
            self.step,
            self.steps,
            first.loss if first else None,
            first.learning_rate if first else None,
            first.gradient_norm if first else None,
            self.tokens,
            time.perf_counter() - started,
        )

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """A block in which the mixture can be evaluated: its gate is fitted; after the last step all is counted.

        The n-gram models have not counted the text that the gate is fitted on; what they count afterwards only adds to
        their tables.
        """
        with ExitStack() as stack:
            for each in self.networks:
                stack.enter_context(each.averaged_weights())
            last = self.step >= self.steps
            if self.fitted != (self.step, last):
                self.count("read")
                self.mixture.eval()
                limit, steps = (None, STEPS) if last else (INTERIM_TOKENS, INTERIM_STEPS)
                fit_gate(self.mixture, self.held_out, self.start_token_id, limit, steps)
                self.fitted = (self.step, last)
            if last:
                self.count("all")
            yield

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The mixture's tensors, the optimizer states of each network, and the values of each trainer."""
        tensors = {f"model.{name}": value for name, value in self.mixture.state_dict().items()}
        values: dict[str, Any] = {"tokens": self.tokens, "plans": self.plans}
        values |= {"step": self.step, "counted": self.counted, "fitted": self.fitted, "networks": {}}
        for at, each in self.trainers.items():
            own, more = each.checkpoint_state()
            values["networks"][str(at)] = more
            tensors |= {f"optimizer.{at}.{name.removeprefix('optimizer.')}": value for name, value in own.items()
                        if name.startswith("optimizer.")}  # fmt: skip
        return tensors, values

    def load_checkpoint_state(self, tensors: dict[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from a saved state. Raises CheckpointMismatch when it belongs to another model."""
        load_weights(self.model, tensors)
        for at, each in self.trainers.items():
            model, optimizer = f"model.experts.{at}.", f"optimizer.{at}."
            own = {f"model.{name.removeprefix(model)}": t for name, t in tensors.items() if name.startswith(model)}
            own |= {f"optimizer.{name.removeprefix(optimizer)}": value for name, value in tensors.items()
                    if name.startswith(optimizer)}  # fmt: skip
            each.load_checkpoint_state(own, {**values["networks"][str(at)]})
        self.step, self.tokens = int(values["step"]), int(values["tokens"])
        self.counted = values["counted"]
        self.fitted = None if values["fitted"] is None else (int(values["fitted"][0]), bool(values["fitted"][1]))
        self.plans = [(int(step), int(steps)) for step, steps in values["plans"]]
