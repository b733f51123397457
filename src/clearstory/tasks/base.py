"""Task: a fine-tuning task. `TaskObjective` trains it with the same trainer as language modelling.

examples ─► Task.encode ─► rows ─► BucketedBatches ─► Task.batch ─► Task.loss          in training
                            └────► Task.predict ─► predictions ─► Task.score ─► metrics   in evaluation

A task is made for one tokenizer, one set of labels and one backbone. Each task has its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

from torch import nn

from clearstory.metrics import Score
from clearstory.models.base import State
from clearstory.models.generation_config import GenerationConfig
from clearstory.tasks.bucketed_batches import BucketedBatches, Row
from clearstory.tasks.chat_settings import ChatSettings
from clearstory.tasks.data.examples import DataSplits, LabeledData
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.sentence_settings import SentenceVectorSettings
from clearstory.tasks.text_to_text_settings import SourceTruncation, TextToTextSettings
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import LossTerms, Validation

InputT = TypeVar("InputT", contravariant=True)
RowT = TypeVar("RowT", bound=Row)
PredictionT = TypeVar("PredictionT")


@runtime_checkable
class Task(Protocol[InputT, RowT, PredictionT]):
    """One task: encoding of examples, loss, predictions, and metrics."""

    @property
    def name(self) -> str:
        """Its name on the command line: classify, tag, embed."""

    @property
    def metric(self) -> str:
        """The metric of a validation that selects the best model, one of those of `score`; higher is better."""

    @property
    def loss_unit(self) -> str:
        """Unit over which the loss is averaged: text, word, pair."""

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The backbone with the head that the task trains; a backbone that has the right head already is kept."""

    def encode(self, examples: Sequence[InputT]) -> list[RowT]:
        """The model's inputs and targets, in the order of the examples; an example can have several rows.

        Raises ContextOverflow, with the location, for a text that exceeds the context.
        """

    def batch(self, rows: Sequence[RowT]) -> TensorBatch:
        """Rows as one padded batch."""

    def count_targets(self, batch: Any) -> dict[str, int]:
        """Number of targets of each loss term, known before the forward pass: accumulation is exact."""

    def loss(self, model: nn.Module, batch: Any) -> LossTerms:
        """The loss terms of one batch, as sums and counts."""

    def predict(self, model: nn.Module, rows: Sequence[RowT]) -> list[PredictionT]:
        """A prediction for each example, in order, by a model in inference mode."""

    def fit_decision(self, model: nn.Module, predictions: Sequence[PredictionT], rows: Sequence[RowT]) -> Self:
        """The task with the threshold fitted to predictions for validation examples, which is also set in the model.

        Returns the same task if it has no threshold to fit.
        """

    def score(self, predictions: Sequence[PredictionT], rows: Sequence[RowT]) -> dict[str, float]:
        """Metrics by name, `metric` among them, and "loss", the mean loss; for the examples of these rows."""

    def intervals(self, predictions: Sequence[PredictionT], rows: Sequence[RowT]) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over examples."""

    def details(
        self, predictions: Sequence[PredictionT], rows: Sequence[RowT], examples: Sequence[Any]
    ) -> dict[str, Any]:
        """Further contents of the report, as values for JSON: scores of each label, the worst errors."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings that tasks share.

    Args:
        truncate: end to drop of a text that exceeds the context.
        source_truncation: end to drop of a source that is too long.
        stride: tokens between the starts of the windows of a text that exceeds the context.
        new_head: whether an existing head is replaced by a new one.
        label_smoothing: share of each target spread over all labels.
        class_weights: the weight of each label in the loss, or balanced; () for equal ones.
        threshold: minimum probability of a predicted label if a text can have several; auto: the threshold with the
            best macro F1 on validation examples; None: that of the model's head.
        embed: pooling and loss of sentence vectors.
        chat: trained tokens of conversations, and their template.
        text_to_text: lengths, prefix and prompt of sources, and generation settings of targets.
        max_eval_samples: number of validation examples for which texts are generated; 0 for all.
        generation_config: the model's generation config; None for a new model.
        folder: the folder of the model; None for a new model.
    """

    truncate: Literal["left", "right"] | None = None
    source_truncation: SourceTruncation | None = None
    stride: int | None = None
    new_head: bool = False
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] = ()
    threshold: Literal["auto"] | float | None = None
    embed: SentenceVectorSettings = field(default_factory=SentenceVectorSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)
    text_to_text: TextToTextSettings = field(default_factory=TextToTextSettings)
    max_eval_samples: int = 0
    generation_config: GenerationConfig | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class TaskSpec:
    """Functions that read the data of a task and make the task for data and a model.

    Args:
        read: returns the examples of files, given known label names (None: any).
        make: returns the task for data, a model, its tokenizer and settings.
        known_labels: returns the label names of a model's head for this task; None without such a head.
        next_command: the command to try with the fine-tuned model; {run} is its folder.
        tokenizer: returns the model's tokenizer with the additions of the task, and a sentence on them.
    """

    read: Callable[[Sequence[str], LabelSettings, Sequence[str] | None], LabeledData[Any]]
    make: Callable[[DataSplits[Any], Any, Tokenizer, TaskSettings], Task[Any, Any, Any]]
    known_labels: Callable[[Any], Sequence[str] | None]
    next_command: str
    tokenizer: Callable[[Tokenizer, TaskSettings], tuple[Tokenizer, str | None]] = lambda own, settings: (own, None)


class EncodedSplit(Generic[RowT]):
    """The rows of one split, in place of a token dataset: what `TaskObjective` batches and validates."""

    def __init__(self, rows: Sequence[RowT]) -> None:
        self.rows = rows
        self.tokens = sum(row.length for row in rows)

    def __len__(self) -> int:
        return self.tokens


@dataclass(frozen=True)
class TaskObjective:
    """The training objective of a task: its loss in training, its metrics in validation.

    `predictions` are those of the latest validation, `fitted` is the task whose threshold was fitted to them. Batches
    have at most `batch_tokens` tokens where that is given, else a number of rows.
    """

    task: Task[Any, Any, Any]
    batch_tokens: int | None = None
    predictions: list[Any] = field(default_factory=list, compare=False)
    fitted: list[Task[Any, Any, Any]] = field(default_factory=list, compare=False)
    no_bits_per_byte: str = field(default="a task is scored by its metrics, not by the probability of a text")

    @property
    def loss_unit(self) -> str:
        """Unit over which the validation loss is averaged."""
        return self.task.loss_unit

    def configure(self, config: Any) -> tuple[TaskObjective, Any]:
        """Both unchanged: the task has been made for the model."""
        return self, config

    def batches(
        self,
        dataset: Any,
        context: int,
        batch_size: int,
        seed: int,
        stateful: bool = False,
        align_documents: bool = False,
    ) -> BucketedBatches[Any]:
        """Rows of similar length, in an order determined by the seed."""
        return BucketedBatches(dataset.rows, batch_size, seed, self.task.batch, self.batch_tokens)

    def count_targets(self, batch: Any) -> dict[str, int]:
        """Number of targets of each loss term."""
        return self.task.count_targets(batch)

    def loss(self, model: nn.Module, batch: Any, state: State | None = None) -> tuple[LossTerms, None]:
        """The loss terms of one batch."""
        return self.task.loss(model, batch), None

    def validate(
        self, model: nn.Module, dataset: Any, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss and metrics on a split, or on the first rows of it with about `limit` tokens.

        `spread` changes nothing: the order of a split is random already.
        """
        rows = dataset.rows
        if limit is not None and limit < dataset.tokens:
            rows = first_rows(rows, limit)
        self.predictions[:] = self.task.predict(model, rows)
        self.fitted[:] = [self.task.fit_decision(model, self.predictions, rows)]
        metrics = dict(self.fitted[0].score(self.predictions, rows))
        loss = metrics.pop("loss")
        score = Score(nats=loss * len(rows), tokens=len(rows), bytes=None, reason=self.no_bits_per_byte)
        return Validation(score, metrics, selected_by=self.task.metric)

    def sample_source(self, dataset: Any, index: int, context: int) -> None:
        """None: no text is sampled."""


@runtime_checkable
class GeneratingTask(Protocol):
    """A task whose model generates texts, which are scored at the end of a run and not during it."""

    def eval_samples(self, data: LabeledData[Any]) -> LabeledData[Any]:
        """The validation examples for which texts are generated."""

    def generate(self, model: Any, examples: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yields the index of each example with its generated text, when it is finished."""

    def evaluate_outputs(self, model: Any, outputs: Mapping[int, Any], data: LabeledData[Any]) -> TaskEvaluation:
        """The scores of the generated texts, given by the indices of their examples."""


def evaluate_task(
    task: Task[Any, Any, Any],
    model: nn.Module,
    data: LabeledData[Any],
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskEvaluation:
    """The scores of a model on examples, with their intervals; `on_progress` is called with the number of examples for
    which texts have been generated, and of all.
    """
    if isinstance(task, GeneratingTask):
        outputs: dict[int, Any] = {}
        for index, output in task.generate(model, data.examples):
            outputs[index] = output
            if on_progress is not None:
                on_progress(len(outputs), len(data.examples))
        return task.evaluate_outputs(model, outputs, data)
    rows = task.encode(data.examples)
    return evaluate_predictions(task, task.predict(model, rows), rows, data)


def evaluate_predictions(
    task: Task[Any, Any, Any], predictions: Sequence[Any], rows: Sequence[Any], data: LabeledData[Any]
) -> TaskEvaluation:
    """The scores of predictions for examples, whose rows hold the targets."""
    metrics = task.score(predictions, rows)
    return TaskEvaluation(
        task.name,
        data.name,
        len(data.examples),
        metrics.pop("loss"),
        metrics,
        task.intervals(predictions, rows),
        task.details(predictions, rows, data.examples),
    )


def first_rows(rows: Sequence[RowT], limit: int) -> list[RowT]:
    """The first rows with about `limit` tokens, at least one; an example is kept whole."""
    total = 0
    for count, row in enumerate(rows):
        if total >= limit and (count == 0 or row.example != rows[count - 1].example):
            return list(rows[:count])
        total += row.length
    return list(rows)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Metrics in one phrase: accuracy 0.893, macro F1 0.892."""
    return ", ".join(f"{metric_title(name)} {value:.3f}" for name, value in metrics.items())


def metric_title(name: str) -> str:
    """The name of a metric as it is shown: macro F1, accuracy."""
    return " ".join("F1" if word == "f1" else word for word in name.split("_"))
