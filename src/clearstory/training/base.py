"""BaseTrainer: interface of trainers: `Trainer` (gradient descent) and `CountTrainer` (counting or EM).

Also what both share: the result of a step, and a model's weights in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor, nn

from clearstory.errors import CheckpointMismatch
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.lora import lora_layers
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True)
class StepResult:
    """The result of one finished step.

    Args:
        step: its number, from 1.
        steps: total steps of the run as planned now.
        loss: mean training loss in nats per token; None if it is not known.
        learning_rate: the rate it was taken at; None for counting.
        gradient_norm: the gradient's norm before clipping; None for counting.
        tokens: tokens read since the run began.
        seconds: time the step took.
        note: something the user should know.
        terms: the terms that add up to the loss, by name.
    """

    step: int
    steps: int
    loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    tokens: int
    seconds: float
    note: str | None = None
    terms: Mapping[str, float] | None = None


class BaseTrainer(Protocol):
    """Trains a model on one split, for a number of steps that may change during the run."""

    model: nn.Module
    settings: TrainingSettings
    context: int
    step: int  # steps taken
    tokens: int  # tokens read
    plans: list[tuple[int, int]]  # each change of the total: the step it was made at, and the new total

    @property
    def steps(self) -> int:
        """Total steps of the run as planned now."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in each step."""

    @property
    def length(self) -> str:
        """The total steps in words, such as "2,000 steps"."""

    @property
    def default_eval_steps(self) -> int | None:
        """Steps between evaluations where the settings give none; None: about twenty in the run."""

    @property
    def default_eval_tokens(self) -> int | None:
        """Validation tokens of an evaluation where the settings give none; None: a tenth of the time."""

    @property
    def final_seconds(self) -> float:
        """Seconds of work after the last step, before the final evaluation."""

    @property
    def complete_after_each_step(self) -> bool:
        """Whether the model can be used after every step, not only after the last."""

    def set_total_steps(self, steps: int) -> None:
        """Change the total steps of the run; the schedule is stretched to it from here on."""

    def measure_step_time(self) -> float | None:
        """Seconds that a step takes, measured without changing the trainer; None if that would cost too much."""

    def train_step(self) -> StepResult:
        """Take one step."""

    def averaged_weights(self) -> AbstractContextManager[None]:
        """A block in which the model has the weights to evaluate and save: averaged ones, where the settings say so."""

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything the next step depends on: named tensors, and plain values."""

    def load_checkpoint_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from a saved state. Raises CheckpointMismatch when it belongs to another model."""


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model; with LoRA only the trained ones, since the base model has the others."""
    if not lora_layers(model):
        return model.state_dict()
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors under "model." into the model. Raises CheckpointMismatch if they belong to another model."""
    saved = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    if has_capability(model, Capability.NGRAM_COUNTS) or has_capability(model, Capability.EXPERTS):
        # as large as its tables
        cast(Any, model).resize({name: tuple(value.shape) for name, value in saved.items()})
    own = trainable_weights(model)
    for name in sorted(own.keys() | saved.keys()):
        here, there = own.get(name), saved.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise CheckpointMismatch(
                f"the checkpoint's '{name}' is {'missing' if there is None else tuple(there.shape)} where this "
                f"run's is {'missing' if here is None else tuple(here.shape)}; resume with the original settings"
            )
    model.load_state_dict(saved, strict=len(own) == len(model.state_dict()))
