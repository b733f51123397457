"""Objective: batches, loss, validation and requirements of a training objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor, nn

from clearstory.metrics import Score
from clearstory.models.base import State, TokenSequences
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch, Batches
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True)
class LossTerm:
    """One term of a loss as a sum and a count, so that the mean is taken once over a whole step.

    A mean of means gives short micro-batches too much weight under gradient accumulation.
    """

    total: Tensor
    count: int
    weight: float = 1.0


LossTerms = dict[str, LossTerm]


@dataclass(frozen=True)
class Validation:
    """The result of one evaluation on the validation split: the summed loss, and further metrics by name.

    `selected_by` names the metric by which the best model of a run is selected; None: by the loss.
    """

    score: Score
    metrics: Mapping[str, float] = field(default_factory=dict)
    selected_by: str | None = None

    @property
    def criterion(self) -> tuple[float, float]:
        """What the best model of a run has the lowest value of: the loss alone, or a metric with its sign changed; then
        the loss, which decides between equal metrics.
        """
        loss = self.score.nats_per_token
        return (loss if self.selected_by is None else -self.metrics[self.selected_by]), loss


class Objective(Protocol):
    """A training objective, made for one tokenizer. One file each."""

    @property
    def loss_unit(self) -> str:
        """What the validation loss is a mean over: token, masked token, target token."""

    @property
    def no_bits_per_byte(self) -> str | None:
        """One sentence on why this loss gives no bits per byte; None if it does."""

    def configure(self, config: Any) -> tuple[Self, Any]:
        """The objective and the model's config, each with the special token ids that the other one determines."""

    def batches(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        stateful: bool = False,
        align_documents: bool = False,
    ) -> Batches:
        """The batches of a split, in an order determined by the seed.

        stateful: each batch continues where the previous one ended; else align_documents: windows begin at documents.
        """

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of targets of each loss term, known before the forward pass: accumulation is exact."""

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[LossTerms, State | None]:
        """The loss terms of one batch, and the model's state after it."""

    def validate(
        self, model: nn.Module, dataset: TokenSequences, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss on a validation split, or on about `limit` tokens of it; the same tokens every time.

        spread: take those tokens from all over the split rather than from its beginning, where there is a choice.
        """

    def sample_source(self, dataset: TokenSequences, index: int, context: int) -> list[int] | None:
        """Source ids to generate a sample from; None for models without a source."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """How an objective is built and what it requires, so that a run can be checked before a model is built.

    Args:
        make: the objective for a tokenizer. Raises BadSetting or CannotDo for a tokenizer without the tokens it needs.
        architectures: the model architectures it trains.
        summary: the final result in one sentence, from a `Validation`.
        next_command: the command to try with the trained model; {run} is its folder.
        sentences: whether the dataset's sequences are sentences.
        pairs: whether the text is pairs of a source and a target.
        sentinels: whether the tokenizer needs sentinel tokens.
        label_smoothing: whether the setting of that name applies.
        generates: whether samples can be generated during training.
        model_defaults: config fields of a new model that differ from its preset.
        check_config: raises BadSetting where the model lacks a head; takes the config, the model's name, and whether it
            is a saved one.
    """

    make: Callable[[Tokenizer, TrainingSettings], Objective]
    architectures: tuple[str, ...]
    summary: Callable[[Validation], str]
    next_command: str = "clearstory generate {run}"
    sentences: bool = False
    pairs: bool = False
    sentinels: bool = False
    label_smoothing: bool = False
    generates: bool = True
    model_defaults: Mapping[str, Any] = field(default_factory=dict)
    check_config: Callable[[Any, str, bool], None] = lambda config, name, saved: None
