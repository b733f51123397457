"""Trainer: gradient descent as an iterator over the results of optimizer steps, without callbacks.

for result in trainer:
    print(result.step, result.loss)

What happens between two steps (evaluating, saving, sampling) is the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from clearstory.errors import BadSetting, CheckpointMismatch, Diverged
from clearstory.models.base import LanguageModel, RestorableState, State, TokenSequences, reads_source
from clearstory.models.device import deterministic
from clearstory.models.matmul.backend import resolve_backend, using_backend
from clearstory.training.base import StepResult, load_weights, trainable_weights
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import Objective
from clearstory.training.optimizers import OptimizerSet, lr_factor, row_gradients, tables_with_row_gradients
from clearstory.training.settings import TrainingSettings
from clearstory.training.weight_average import WeightAverage

COMPUTE_DTYPES = {"fp32": None, "auto": None, "bf16": torch.bfloat16}
"""Dtype of hidden states and matrix products by setting; weights and updates are always fp32. "auto" is resolved before
a trainer is made."""


class Trainer:
    """Trains a model on one split by gradient descent, for a number of steps that may change during the run.

    The order of the data and every random draw are functions of (seed, step), so a trainer that loads the state of
    step s continues exactly as the one that was saved: bit for bit on the same machine and thread count.

    >>> from dataclasses import replace
    >>> from types import SimpleNamespace
    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> from clearstory.training.objectives.causal import Causal
    >>> model = build(replace(NANOGPT_CHAR, layers=1, context=8), seed=1)
    >>> dataset = SimpleNamespace(ids=torch.arange(64).numpy())
    >>> trainer = Trainer(model, Causal(), dataset, TrainingSettings(batch_size=2, warmup_steps=0), steps=3)
    >>> [result.step for result in trainer]
    [1, 2, 3]
    """

    def __init__(
        self, model: nn.Module, objective: Objective, dataset: TokenSequences, settings: TrainingSettings, *, steps: int
    ) -> None:
        self.model = model
        self.objective = objective
        self.settings = settings
        self.context = training_context(model, dataset, settings)
        self.stateful = is_stateful(model, settings)
        step_batch_size = settings.batch_size * settings.gradient_accumulation_steps
        self.batches = objective.batches(
            dataset, self.context, step_batch_size, settings.seed, self.stateful, bool(settings.align_documents)
        )
        self.state: RestorableState | None = None
        self.average = WeightAverage(model)
        self.optimizers = OptimizerSet(model, settings)
        self.tables = tables_with_row_gradients(model, settings)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.matmul = resolve_backend(settings.matmul if self.device.type == "cpu" else "mkl", "training.matmul")
        self.step = 0
        self.tokens = 0
        self.plans: list[tuple[int, int]] = [(0, steps)]

    @property
    def steps(self) -> int:
        """Total steps of the run as planned now."""
        return self.plans[-1][1]

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in each step; a mean where batches differ."""
        s = self.settings
        n_tokens = s.batch_size * s.gradient_accumulation_steps * self.context
        return int(getattr(self.batches, "tokens_per_batch", n_tokens))

    @property
    def length(self) -> str:
        """The total steps in words, with their size where it varies."""
        about = f" of about {self.tokens_per_step:,} tokens" if hasattr(self.batches, "tokens_per_batch") else ""
        return f"{self.steps:,} steps{about}"

    @property
    def default_eval_steps(self) -> None:
        """None: about twenty evaluations in the run."""

    @property
    def default_eval_tokens(self) -> None:
        """None: as many as take a tenth of the time."""

    @property
    def final_seconds(self) -> float:
        """0: the last step completes the model."""
        return 0.0

    @property
    def complete_after_each_step(self) -> bool:
        """True: every step leaves a model that can be used."""
        return True

    def set_total_steps(self, steps: int) -> None:
        """Change the total steps of the run; the learning rate schedule is stretched to it from here on."""
        self.plans.append((self.step, max(steps, self.step)))

    def measure_step_time(self) -> float:
        """Seconds that a step takes; the trainer's state is restored afterwards."""
        tensors, values = self.checkpoint_state()
        tensors = {name: value.clone() for name, value in tensors.items()}
        plans, self.plans = self.plans, [(0, 10**9)]
        seconds = median_seconds(self.train_step)
        self.optimizers.reset()
        self.load_checkpoint_state(tensors, {**values, "plans": plans})
        return seconds

    def __iter__(self) -> Iterator[StepResult]:
        while self.step < self.steps:
            yield self.train_step()

    def train_step(self) -> StepResult:
        """One optimizer step over `gradient_accumulation_steps` micro-batches.

        Raises Diverged, with the weights unchanged, when the loss or its gradient is not finite.
        """
        started = time.perf_counter()
        s = self.settings
        self.model.train()
        cast(Any, self.model).compute_dtype = COMPUTE_DTYPES[s.precision]
        batch = self.batches.batch(self.step)
        micro_batches = batch.split(s.gradient_accumulation_steps)
        states = self.initial_states(len(micro_batches))
        counts = [self.objective.count_targets(micro_batch) for micro_batch in micro_batches]
        totals = {term: sum(count[term] for count in counts) for term in counts[0]}
        # Random draws are a function of seed and step, whatever was drawn between two steps.
        torch.manual_seed((s.seed * 1_000_003 + self.step) % 2**63)
        terms, final_states = dict.fromkeys(totals, 0.0), []
        with deterministic(self.device), using_backend(self.matmul), row_gradients(self.tables):
            for micro_batch, state in zip(micro_batches, states, strict=True):
                more, state = self.backward(micro_batch, totals, state)
                terms = {name: terms[name] + more[name] for name in terms}
                final_states.append(state)
            norm = self.clip_gradients()
        loss = sum(terms.values())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            remedy = f"lower --training.learning_rate (now {s.learning_rate:g}) or use a longer warm-up"
            if self.step == 0 and not math.isfinite(loss):
                remedy = "no weight has been changed yet, so the initial weights overflow; start from another model"
            raise Diverged(
                f"the loss became {loss} (gradient norm {norm}) at step {self.step + 1:,}; the weights of step "
                f"{self.step:,} are kept; {remedy}"
            )
        factor = lr_factor(self.step, self.steps, s)
        with deterministic(self.device):
            self.optimizers.step(factor)
        self.state = join_states(final_states)
        self.step += 1
        self.tokens += batch.n_tokens
        if s.weight_average and (self.average.count or self.step > self.steps * (1 - s.weight_average)):
            self.average.update()
        seconds = time.perf_counter() - started
        learning_rate = s.learning_rate * factor
        return StepResult(self.step, self.steps, loss, learning_rate, norm, self.tokens, seconds, terms=terms)

    def initial_states(self, count: int) -> list[State | None]:
        """The initial state of each of the next step's `count` micro-batches; None for a model trained on shuffled
        windows.
        """
        batch_size, n_micro_batches = self.settings.batch_size, self.settings.gradient_accumulation_steps
        if not self.stateful:
            return [None] * count
        if self.state is None or not self.batches.continues(self.step):
            fresh = cast(LanguageModel, self.model).init_state(batch_size * n_micro_batches)
            self.state = cast(RestorableState, fresh)
        return [self.state.select(range(i * batch_size, (i + 1) * batch_size)) for i in range(count)]

    def averaged_weights(self) -> AbstractContextManager[None]:
        """A block in which the model has the weights to evaluate and save: averaged ones, where the settings say so."""
        return self.average.applied()

    def backward(
        self, micro_batch: TensorBatch, totals: dict[str, int], state: State | None
    ) -> tuple[dict[str, float], State | None]:
        """Add a micro-batch's share of the step's gradient; its share of each loss term, and its final state.

        `totals` are the step's targets of each term. Raises BadSetting if a GPU's memory does not suffice.
        """
        try:
            moved: Any = micro_batch.to(self.device)  # of the class that the objective makes
            terms, final_state = self.objective.loss(self.model, moved, state)
            shares = {name: (term.weight / max(1, totals[name])) * term.total for name, term in terms.items()}
            loss = sum(shares.values())
            assert isinstance(loss, Tensor)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
        except torch.OutOfMemoryError:
            s = self.settings
            raise BadSetting(
                f"{s.batch_size:,} sequences of {self.context:,} tokens do not fit in the memory of {self.device}; "
                "lower --training.batch_size, and raise --training.gradient_accumulation_steps to keep the tokens per "
                "step"
            ) from None
        values = {name: float(share.detach()) for name, share in shares.items()}
        return values, None if final_state is None else final_state.detach()

    def clip_gradients(self) -> float:
        """Scale the gradient down to the allowed norm; its norm before."""
        # Sparse rows are updated by Adagrad, whose steps do not depend on the gradient's norm.
        gradients = [p.grad for p in self.parameters if p.grad is not None and not p.grad.is_sparse]
        for table in self.tables:
            if (rows := table.weight.grad) is not None and rows.is_sparse:
                table.weight.grad = rows.coalesce()  # each row once
                gradients.append(table.weight.grad._values())
        norm, clip = torch.nn.utils.get_total_norm(gradients), self.settings.gradient_clip
        # A factor of 1 would be multiplied into every gradient all the same.
        if clip and not norm + 1e-6 <= clip:
            torch._foreach_mul_(gradients, torch.clamp(clip / (norm + 1e-6), max=1.0))
        return float(norm)

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything the next step depends on: named tensors, and plain values."""
        tensors = {f"model.{name}": value for name, value in trainable_weights(self.model).items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizers.tensors(self.model).items()}
        tensors |= {f"optimizer.{AVERAGE}{name}": value for name, value in self.average.tensors().items()}
        if self.state is not None:
            tensors |= {f"optimizer.{STATE}{name}": value for name, value in self.state.tensors().items()}
        averaged = self.average.count
        return tensors, {"step": self.step, "tokens": self.tokens, "plans": self.plans, "averaged_steps": averaged}

    def load_checkpoint_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from a saved state. Raises CheckpointMismatch when it belongs to another model."""
        load_weights(self.model, tensors)
        optimizer_tensors = without_prefix("optimizer.", tensors)
        means, state = without_prefix(AVERAGE, optimizer_tensors), without_prefix(STATE, optimizer_tensors)
        self.optimizers.load(
            self.model,
            {name: value for name, value in optimizer_tensors.items() if not name.startswith((AVERAGE, STATE))},
        )
        try:
            self.average.load(means, int(values["averaged_steps"]))
            batch_size = self.settings.batch_size * self.settings.gradient_accumulation_steps
            self.state = cast(Any, self.model).init_state(batch_size).restored(state) if state else None
        except KeyError as missing:
            raise CheckpointMismatch(
                f"the checkpoint lacks {missing}, which the run needs to continue; resume from another, or delete it"
            ) from None
        self.step, self.tokens = int(values["step"]), int(values["tokens"])
        self.plans = [(int(step), int(steps)) for step, steps in values["plans"]]


def is_stateful(model: nn.Module, settings: TrainingSettings) -> bool:
    """Whether the state is carried from batch to batch; never for a model with a context or with a source."""
    return settings.stateful and cast(LanguageModel, model).context is None and not reads_source(model)


def training_context(model: nn.Module, dataset: TokenSequences, settings: TrainingSettings) -> int:
    """Tokens per training sequence: the setting, else the model's context, else 256.

    Aligned windows are no longer than the longest document, since what follows it belongs to another.
    """
    if settings.context:
        return settings.context
    context = cast(LanguageModel, model).context or 256
    aligned = settings.align_documents and not is_stateful(model, settings)
    return min(context, int(np.diff(dataset.starts).max())) if aligned else context


STATE, AVERAGE = "state.", "average."
"""Prefixes of a checkpoint's tensors other than the optimizers' own; no parameter's name begins with them."""


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, under their names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def join_states(states: list[State | None]) -> Any:
    """The states of all micro-batches as one; None if there are none."""
    known = [state for state in states if state is not None]
    return type(known[0]).join(known) if known else None


def median_seconds(function: Callable[[], object], *, warmup: int = 2, least: float = 0.5, most: int = 10) -> float:
    """Median duration of 3 to `most` calls in seconds, measured for at least `least` seconds after a warm-up."""
    for _ in range(warmup):
        function()
    times: list[float] = []
    started = time.monotonic()
    while len(times) < 3 or (time.monotonic() - started < least and len(times) < most):
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]
