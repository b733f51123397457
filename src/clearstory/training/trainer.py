"""Trainer: trains by being iterated; each item is one finished optimizer step. No callbacks.

for progress in trainer:
    print(progress.step, progress.loss)

What happens between two items (looking at the validation split, saving, sampling) is the caller's business.
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
from clearstory.models.base import RestorableState, State
from clearstory.models.machine import repeatable
from clearstory.training.weight_average import WeightAverage
from clearstory.training.batches import Batch, Rows
from clearstory.training.base import StepResult, load_weights, weights
from clearstory.training.objectives.base import Objective
from clearstory.training.optimizer import OptimizerSet
from clearstory.training.lr_schedule import rate
from clearstory.training.settings import TrainingSettings

COMPUTE_DTYPES = {"fp32": None, "auto": None, "bf16": torch.bfloat16}
"""Of the stream and the matrix products; weights and updates are always fp32. "auto" is decided by who measures."""


class Trainer:
    """Trains a model on one split by an objective, for a number of steps that may be re-planned on the way.

    The order of the data and every random draw are functions of (seed, step), so a trainer that loads the state of
    step s goes on exactly as the one that was saved would have: bit for bit on the same machine and thread count.

    >>> from dataclasses import replace
    >>> from types import SimpleNamespace
    >>> from clearstory.models.families import build
    >>> from clearstory.models.presets import NANOGPT_CHAR
    >>> from clearstory.training.objectives.causal import Causal
    >>> model = build(replace(NANOGPT_CHAR, layers=1, context=8), seed=1)
    >>> rows = SimpleNamespace(ids=torch.arange(64).numpy())
    >>> trainer = Trainer(model, Causal(), rows, TrainingSettings(batch_size=2, warmup_steps=0), steps=3)
    >>> [progress.step for progress in trainer]
    [1, 2, 3]
    """

    def __init__(
        self, model: nn.Module, objective: Objective, rows: Rows, settings: TrainingSettings, *, steps: int
    ) -> None:
        self.model = model
        self.objective = objective
        self.settings = settings
        self.context = window(model, rows, settings)
        self.stateful = carries(model, settings)
        whole = settings.batch_size * settings.gradient_accumulation_steps
        self.batches = objective.batches(rows, self.context, whole, settings.seed, self.stateful, bool(settings.align_documents))
        self.carried: RestorableState | None = None
        self.average = WeightAverage(model)
        self.optimizers = OptimizerSet(model, settings)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.step = 0
        self.tokens = 0
        self.plans: list[tuple[int, int]] = [(0, steps)]

    @property
    def steps(self) -> int:
        """Steps of the run as planned now."""
        return self.plans[-1][1]

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in each."""
        s = self.settings
        return int(getattr(self.batches, "size", s.batch_size * s.gradient_accumulation_steps * self.context))

    @property
    def plan(self) -> str:
        """The steps in words."""
        return f"{self.steps:,} steps"

    @property
    def eval_steps(self) -> None:
        """As time allows."""

    def set_total_steps(self, steps: int) -> None:
        """From here on the run is this long; the schedule stretches or shrinks with it."""
        self.plans.append((self.step, max(steps, self.step)))

    def probe(self) -> float:
        """Seconds that a step takes; the trainer stands afterwards as it stood before."""
        tensors, values = self.state()
        tensors = {name: value.clone() for name, value in tensors.items()}
        plans, self.plans = self.plans, [(0, 10**9)]
        seconds = seconds_per_step(self.advance)
        self.optimizers.forget()
        self.load_state(tensors, {**values, "plans": plans})
        return seconds

    def __iter__(self) -> Iterator[StepResult]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> StepResult:
        """One optimizer step over `gradient_accumulation_steps` micro-batches.

        Raises Diverged before the weights are touched when the loss or its gradient is not a finite number.
        """
        began = time.perf_counter()
        s = self.settings
        self.model.train()
        cast(Any, self.model).compute_dtype = COMPUTE_DTYPES[s.precision]
        batch, states = self.batches.batch(self.step), self.remembered()
        starts = range(0, s.batch_size * s.gradient_accumulation_steps, s.batch_size)
        batches = [batch.rows(start, start + s.batch_size) for start in starts]
        counts = [self.objective.counts(batch) for batch in batches]
        whole = {term: sum(count[term] for count in counts) for term in counts[0]}
        # Chance is a function of seed and step, whatever was drawn between two steps.
        torch.manual_seed((s.seed * 1_000_003 + self.step) % 2**63)
        terms, after = dict.fromkeys(whole, 0.0), []
        with repeatable(self.device):
            for part, state in zip(batches, states, strict=True):
                more, state = self.backward(part, whole, state)
                terms = {name: terms[name] + more[name] for name in terms}
                after.append(state)
            norm = self.clip()
        loss = sum(terms.values())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"the loss became {loss} (gradient {norm}) at step {self.step + 1:,}; the weights of step "
                f"{self.step:,} are kept; lower --training.learning_rate (now {s.learning_rate:g}) or raise "
                "--training.warmup_steps"
            )
        share = rate(self.step, self.steps, s)
        with repeatable(self.device):
            self.optimizers.step(share)
        self.carried = joined(after)
        self.step += 1
        self.tokens += batch.size
        if s.weight_average and (self.average.count or self.step > self.steps * (1 - s.weight_average)):
            self.average.add()
        seconds = time.perf_counter() - began
        return StepResult(self.step, self.steps, loss, s.learning_rate * share, norm, self.tokens, seconds, terms=terms)

    def remembered(self) -> list[State | None]:
        """What each micro-batch of the next step goes on from."""
        rows, parts = self.settings.batch_size, self.settings.gradient_accumulation_steps
        if not self.stateful:
            return [None] * parts
        if self.carried is None or not self.batches.continues(self.step):
            self.carried = cast(Any, self.model).init_state(rows * parts)
        assert self.carried is not None
        return [self.carried.select(range(at * rows, (at + 1) * rows)) for at in range(parts)]

    def averaged(self) -> AbstractContextManager[None]:
        """While this lasts the model is the one to be used: with its mean weights, where they are averaged."""
        return self.average.shown()

    def backward(
        self, batch: Batch, whole: dict[str, int], state: State | None
    ) -> tuple[dict[str, float], State | None]:
        """Add one micro-batch's share of the step's gradient; its share of each term of the loss, and what it
        remembers.

        Raises BadSetting where a GPU's memory does not hold it.
        """
        try:
            batch = batch.to(self.device)
            terms, after = self.objective.loss(self.model, batch, state)
            shares = {name: (term.weight / max(1, whole[name])) * term.total for name, term in terms.items()}
            loss = sum(shares.values())
            assert isinstance(loss, Tensor)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
        except torch.OutOfMemoryError:
            s = self.settings
            raise BadSetting(
                f"{s.batch_size:,} rows of {self.context:,} tokens do not fit into the memory of {self.device}; lower "
                "--training.batch_size, and raise --training.gradient_accumulation_steps to read as many in a step"
            ) from None
        told = {name: float(share.detach()) for name, share in shares.items()}
        return told, None if after is None else after.detach()

    def clip(self) -> float:
        """Shorten the gradient to the longest allowed; its length before."""
        # Sparse rows are moved by Adagrad, which a gradient's length does not touch.
        dense = [p for p in self.parameters if p.grad is not None and not p.grad.is_sparse]
        norm = torch.nn.utils.get_total_norm([p.grad for p in dense if p.grad is not None])
        if self.settings.gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(dense, self.settings.gradient_clip, norm)
        return float(norm)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors, and plain values."""
        tensors = {f"model.{name}": value for name, value in weights(self.model).items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizers.tensors(self.model).items()}
        tensors |= {f"optimizer.{AVERAGE}{name}": value for name, value in self.average.tensors().items()}
        if self.carried is not None:
            tensors |= {f"optimizer.{CARRIED}{name}": value for name, value in self.carried.tensors().items()}
        averaged = self.average.count
        return tensors, {"step": self.step, "tokens": self.tokens, "plans": self.plans, "averaged": averaged}

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from a saved state. Raises CheckpointMismatch when it belongs to another model."""
        load_weights(self.model, tensors)
        moments = under("optimizer.", tensors)
        means, carried = under(AVERAGE, moments), under(CARRIED, moments)
        self.optimizers.load(
            self.model, {key: value for key, value in moments.items() if not key.startswith((AVERAGE, CARRIED))}
        )
        try:
            self.average.load(means, int(values["averaged"]))
            rows = self.settings.batch_size * self.settings.gradient_accumulation_steps
            self.carried = cast(Any, self.model).init_state(rows).restored(carried) if carried else None
        except KeyError as missing:
            raise CheckpointMismatch(
                f"the checkpoint lacks {missing}, which the run goes on from; resume from another, or delete it"
            ) from None
        self.step, self.tokens = int(values["step"]), int(values["tokens"])
        self.plans = [(int(step), int(steps)) for step, steps in values["plans"]]


def carries(model: nn.Module, settings: TrainingSettings) -> bool:
    """Whether memory goes on from batch to batch. A model with a context looks back no further than its window."""
    return settings.stateful and getattr(model, "context", 0) is None


def window(model: nn.Module, rows: Rows, settings: TrainingSettings) -> int:
    """Tokens that are read at once: the model's context where the settings name none; of aligned windows no more than
    the longest document has, since what follows it is another's.
    """
    if settings.context:
        return settings.context
    context = getattr(model, "context", None) or 256
    aligned = settings.align_documents and not carries(model, settings)
    return min(context, int(np.diff(rows.starts).max())) if aligned else context


CARRIED, AVERAGE = "carried.", "average."
"""What a checkpoint has beside the optimizers' own: no parameter's name begins so."""


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def joined(states: list[State | None]) -> Any:
    """The memory of all micro-batches in one; None where nothing is carried."""
    known = [state for state in states if state is not None]
    return type(known[0]).join(known) if known else None


def seconds_per_step(step: Callable[[], object], *, warm: int = 2, least: float = 0.5, most: int = 10) -> float:
    """Time a step takes: the median of a few after a warm-up."""
    for _ in range(warm):
        step()
    times: list[float] = []
    began = time.monotonic()
    while len(times) < 3 or (time.monotonic() - began < least and len(times) < most):
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]
