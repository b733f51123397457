"""Learner: what a run needs of whatever learns, step by step: a Trainer by gradient, Rounds by counting."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from clearstory.errors import CheckpointMismatch
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True)
class StepResult:
    """One finished step: its number (from 1), what it cost and how it went. Loss in nats per token; what a learner
    does not know, or does not have, is None.
    """

    step: int
    steps: int
    loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    tokens: int
    seconds: float
    note: str | None = None  # what the user should know
    terms: Mapping[str, float] | None = None  # what the loss is the sum of


class BaseTrainer(Protocol):
    """Teaches a model on one split, for a number of steps that may be re-planned on the way."""

    model: nn.Module
    settings: TrainingSettings
    context: int
    step: int
    tokens: int
    plans: list[tuple[int, int]]

    @property
    def steps(self) -> int:
        """Steps of the run as planned now."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in each."""

    @property
    def plan(self) -> str:
        """The steps in words."""

    @property
    def eval_steps(self) -> int | None:
        """Steps between two looks at other text, where its kind of learning says so; None: as time allows."""

    def set_total_steps(self, steps: int) -> None:
        """From here on the run is this long."""

    def probe(self) -> float | None:
        """Seconds that a step takes, tried out without leaving a trace; None where that would cost too much."""

    def advance(self) -> StepResult:
        """One step."""

    def averaged(self) -> AbstractContextManager[None]:
        """While this lasts the model is the one to be used, its weights averaged where they are to be."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors, and plain values."""

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from a saved state. Raises CheckpointMismatch when it belongs to another model."""


def weights(model: nn.Module) -> dict[str, Tensor]:
    """All that training can change of a model: parameters that rest stand in the folder it began with."""
    resting = {name for name, each in model.named_parameters(remove_duplicate=False) if not each.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in resting}


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The tensors under "model." into the model. Raises CheckpointMismatch when they belong to another."""
    saved = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    if callable(resize := getattr(model, "resize", None)):  # a model that is as large as what it has counted
        resize({name: tuple(value.shape) for name, value in saved.items()})
    own = weights(model)
    for name in sorted(own.keys() | saved.keys()):
        here, there = own.get(name), saved.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise CheckpointMismatch(
                f"the checkpoint's '{name}' is {'missing' if there is None else tuple(there.shape)} where this "
                f"run's is {'missing' if here is None else tuple(here.shape)}; resume with the settings it was "
                "made with"
            )
    model.load_state_dict(saved, strict=len(own) == len(model.state_dict()))
