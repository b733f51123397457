"""Classify: labels of texts or of pairs of texts: one, several, or a number. Devlin et al. 2019, section 4.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.evaluation.classification import (
    Floats,
    Metrics,
    bootstrap_metrics,
    calibration,
    class_scores,
    confusion_matrix,
    multi_label_metrics,
    regression_metrics,
    single_label_metrics,
)
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.head_config import DEFAULT_THRESHOLD, ProblemType, check_threshold
from clearstory.models.heads import SequenceClassifier
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.class_weights import check_class_weights, class_weights_of, shares_of
from clearstory.tasks.data.examples import DataSplits, LabeledText
from clearstory.tasks.data.labeled_texts import read_labeled_pairs, read_labeled_texts
from clearstory.tasks.head_labels import describe_head, describe_labels, labels_of_texts
from clearstory.tasks.prediction_batches import window_outputs
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import LossTerm, LossTerms

PROBLEM_TYPES: dict[str, ProblemType] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
"""From the kind of the data to `problem_type` of transformers."""

METRICS: dict[str, Metrics] = {
    "single_label_classification": single_label_metrics,
    "multi_label_classification": multi_label_metrics,
    "regression": regression_metrics,
}
"""Metrics of each kind of problem. The first one selects the best model of a run."""

SELECTED_BY = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "macro_f1",
    "regression": "spearman",
}

THRESHOLDS = tuple(step / 20 for step in sorted(range(1, 20), key=lambda step: (abs(step - 10), step)))
"""Thresholds that are tried where one of several labels is decided by the best: 0.05, 0.1 ... 0.95, from the middle."""

WORST_MISTAKES = 20
"""Wrong predictions that a report shows."""


@dataclass(frozen=True)
class TextRow:
    """A window of a text with its target: a label id, 0 or 1 for each label, or a number."""

    ids: tuple[int, ...]
    token_types: tuple[int, ...] | None
    target: int | tuple[float, ...] | float
    example: int

    @property
    def length(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self.ids)


@dataclass(frozen=True)
class LabeledBatch(TensorBatch):
    """Texts with their labels.

    Args:
        tokens: input ids, (B, T).
        targets: label ids, (B,); 0 or 1 for each label, or numbers, (B, labels).
        token_types: 0 for tokens of the first text, 1 for those of the second, (B, T); None without pairs.
    """

    targets: Int[Tensor, "B"] | Float[Tensor, "B labels"]
    token_types: Int[Tensor, "B T"] | None = None


@dataclass(frozen=True)
class Classify:
    """Classification of texts.

    Args:
        labels: names of the labels in the order of their ids; one name for a number.
        problem_type: single label, several labels or a number.
        windows: encoding of texts as inputs.
        label_smoothing: share of each target spread over all labels.
        class_weights: weight of each label in the loss, of mean 1 over the training examples; None for equal ones.
        threshold: minimum probability of a predicted label if a text can have several; None: to be fitted to validation
            examples, initially 0.5.
        shares: frequency of each label in the training texts if a text can have several; a new head predicts it for any
            text before training (Lin et al. 2017, section 3.3); None: 0.5.
    """

    labels: tuple[str, ...]
    problem_type: ProblemType
    windows: TextWindows
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    threshold: float | None = DEFAULT_THRESHOLD
    shares: tuple[float, ...] | None = None

    name = "classify"
    loss_unit = "text"

    def __post_init__(self) -> None:
        if self.problem_type == "regression" and self.label_smoothing:
            raise BadSetting("training.label_smoothing is for labels, but the examples have numbers; leave it out")
        check_class_weights(self.class_weights, self.labels)
        if self.threshold is not None:
            check_threshold(self.threshold, self.problem_type)

    @property
    def metric(self) -> str:
        """accuracy for one label, macro_f1 for several, spearman for numbers."""
        return SELECTED_BY[self.problem_type]

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The backbone with a classification head; one that has a head for these labels is kept.

        Raises BadInput for a head of another kind or other labels.
        """
        if has_capability(backbone, Capability.CLASSIFIER):
            config: Any = backbone.config
            if (config.label_level, config.problem_type) != ("text", self.problem_type) or config.labels != self.labels:
                raise BadInput(
                    f"the model has a head for {describe_head(config)}, and the data are for "
                    f"{describe_labels(self.problem_type, self.labels)}; pass --new_head to train another one"
                )
            return backbone
        threshold = self.threshold or DEFAULT_THRESHOLD
        model = SequenceClassifier(backbone, self.labels, problem_type=self.problem_type, threshold=threshold)
        if self.shares is not None and model.classifier.bias is not None:
            with torch.no_grad():
                model.classifier.bias.copy_(torch.logit(torch.tensor(self.shares, dtype=torch.float64)))
        return model

    def encode(self, examples: Sequence[LabeledText]) -> list[TextRow]:
        """The windows of every text, with its target."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return [
            TextRow(window.ids, window.token_types, self.target(example, numbers), index)
            for index, example in enumerate(examples)
            for window in self.windows(example.text, example.pair, example.location)
        ]

    def target(self, example: LabeledText, numbers: dict[str, int]) -> int | tuple[float, ...] | float:
        """The target of an example. Raises BadInput for an unknown label."""
        if self.problem_type == "regression":
            if example.value is None:
                raise BadInput(f"{example.location or 'a text'} has no number to predict")
            return example.value
        if unknown := [label for label in example.labels if label not in numbers]:
            raise BadInput(
                f"{example.location or 'a text'} has the label {unknown[0][:60]!r}, and the labels are "
                f"{', '.join(self.labels[:20])}"
            )
        if self.problem_type == "single_label_classification":
            return numbers[example.labels[0]]
        return tuple(float(label in example.labels) for label in self.labels)

    def batch(self, rows: Sequence[TextRow]) -> LabeledBatch:
        """Rows as one padded batch."""
        tokens = TokenBatch.from_sequences([row.ids for row in rows])
        single = self.problem_type == "single_label_classification"
        targets = torch.tensor([row.target for row in rows], dtype=torch.long if single else torch.float32)
        types = None
        if any(row.token_types for row in rows):
            types = TokenBatch.from_sequences([row.token_types or (0,) * row.length for row in rows]).ids
        return LabeledBatch(tokens, targets if single else targets.view(len(rows), -1), types)

    def count_targets(self, batch: LabeledBatch) -> dict[str, int]:
        """Number of texts; of labels where each text can have several."""
        return {"labels": batch.targets.numel()}

    def loss(self, model: nn.Module, batch: LabeledBatch) -> LossTerms:
        """Cross-entropy of one label, binary cross-entropy of several, or squared error of numbers."""
        logits = cast(SequenceClassifier, model).class_logits(batch.tokens, batch.token_types).float()
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.problem_type == "single_label_classification":
            nats = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing, reduction="none")
            nats = nats if weights is None else nats * weights[batch.targets]
        elif self.problem_type == "multi_label_classification":
            targets = batch.targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            nats = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
        else:
            nats = F.mse_loss(logits, batch.targets, reduction="none")
        return {"labels": LossTerm(nats.sum(), batch.targets.numel())}

    def predict(self, model: nn.Module, rows: Sequence[TextRow]) -> list[Floats]:
        """Probabilities of all labels, or the number, (labels,), of each example; the mean of its windows."""
        outputs = window_outputs(model, rows)
        values = probabilities(outputs, self.problem_type).numpy()
        examples = groupby(range(len(rows)), key=lambda index: rows[index].example)
        return [values[list(indices)].mean(0) for _, indices in examples]

    def fit_decision(self, model: nn.Module, predictions: Sequence[Floats], rows: Sequence[TextRow]) -> Self:
        """The task with the threshold that has the best macro F1, where none is given; it is set in the model's config,
        too.
        """
        if self.threshold is not None or not predictions:
            return self
        threshold, network = best_threshold(np.stack(predictions), self.targets(rows)), cast(Any, model)
        network.config = replace(network.config, threshold=threshold)
        return replace(self, threshold=threshold)

    def score(self, predictions: Sequence[Floats], rows: Sequence[TextRow]) -> dict[str, float]:
        """Metrics by name, and the mean loss without label smoothing and class weights."""
        values, targets = np.stack(predictions), self.targets(rows)
        tiny = np.finfo(np.float64).tiny
        if self.problem_type == "single_label_classification":
            loss = -np.log(values[np.arange(len(values)), targets] + tiny).mean()
        elif self.problem_type == "multi_label_classification":
            loss = -np.log(np.where(targets > 0, values, 1 - values) + tiny).mean()
        else:
            loss = ((values[:, 0] - targets) ** 2).mean()
        return {"loss": float(loss), **METRICS[self.problem_type](self.decide(values), targets)}

    def intervals(self, predictions: Sequence[Floats], rows: Sequence[TextRow]) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over texts."""
        return bootstrap_metrics(METRICS[self.problem_type], self.decide(np.stack(predictions)), self.targets(rows))

    def details(
        self, predictions: Sequence[Floats], rows: Sequence[TextRow], examples: Sequence[LabeledText]
    ) -> dict[str, Any]:
        """Scores of each label; where each text has one label, the confusion matrix, whose rows are right labels, the
        calibration and the worst mistakes.
        """
        if self.problem_type == "regression":
            return {}
        values, references, count = np.stack(predictions), self.targets(rows), len(self.labels)
        predicted, confusion = self.decide(values), {}
        if self.problem_type == "single_label_classification":
            confusion = {
                "confusion": confusion_matrix(predicted, references, count).tolist(),
                "calibration": calibration(values.max(1), predicted == references),
                "mistakes": self.mistakes(values, references, examples),
            }
            predicted, references = np.eye(count, dtype=bool)[predicted], np.eye(count, dtype=bool)[references]
        scores = class_scores((predicted & references).sum(0), predicted.sum(0), references.sum(0), self.labels)
        return {"labels": [asdict(each) for each in scores], **confusion}

    def mistakes(self, values: Floats, references: Any, examples: Sequence[LabeledText]) -> list[dict[str, Any]]:
        """The texts with a wrong label that the model is surest of, at most WORST_MISTAKES."""
        wrong = np.flatnonzero(values.argmax(1) != references)
        worst = wrong[np.argsort(-values[wrong].max(1), kind="stable")][:WORST_MISTAKES].tolist()
        return [
            {
                "text": examples[at].text,
                **({} if examples[at].pair is None else {"pair": examples[at].pair}),
                "location": examples[at].location,
                "label": self.labels[int(references[at])],
                "predicted": self.labels[int(values[at].argmax())],
                "probability": float(values[at].max()),
            }
            for at in worst
        ]

    def targets(self, rows: Sequence[TextRow]) -> Any:
        """The targets of all examples: label ids or numbers, (N,), or whether each label is right, (N, labels)."""
        targets = np.array([next(iter(group)).target for _, group in groupby(rows, key=lambda row: row.example)])
        return targets > 0 if self.problem_type == "multi_label_classification" else targets

    def decide(self, values: Floats) -> Any:
        """The predictions for probabilities or numbers, (N, labels), in the format of `targets`."""
        if self.problem_type == "single_label_classification":
            return values.argmax(1)
        if self.problem_type == "regression":
            return values[:, 0]
        return values >= (self.threshold or DEFAULT_THRESHOLD)


def best_threshold(values: Floats, targets: Any) -> float:
    """The one of THRESHOLDS by which probabilities, (N, labels), have the best macro F1; the nearest to 0.5 of equal
    ones.
    """
    return max(THRESHOLDS, key=lambda threshold: multi_label_metrics(values >= threshold, targets)["macro_f1"])


def probabilities(logits: Float[Tensor, "N labels"], problem_type: ProblemType) -> Float[Tensor, "N labels"]:
    """Probabilities by these logits: softmax of one label, sigmoid of several; a number is itself."""
    if problem_type == "single_label_classification":
        return logits.softmax(-1)
    return logits.sigmoid() if problem_type == "multi_label_classification" else logits


NUMBER_LABEL = "value"
"""Name of the only output of a regression head."""


def make_classify(data: DataSplits[LabeledText], model: Any, tokenizer: Tokenizer, settings: TaskSettings) -> Classify:
    """The task for these data, whose texts become inputs of this model."""
    problem_type = PROBLEM_TYPES[data.train.kind]
    labels = (NUMBER_LABEL,) if problem_type == "regression" else data.train.label_names
    if problem_type == "regression" and has_capability(model, Capability.CLASSIFIER) and not settings.new_head:
        labels = model.config.labels[:1]
    weights = class_weights_of(settings.class_weights, data.train.examples, labels, problem_type)
    windows = TextWindows.of_model(model, tokenizer, settings.truncate, settings.stride)
    several = problem_type == "multi_label_classification"
    threshold = settings.threshold
    if threshold is None or (not several and threshold == "auto"):
        threshold = getattr(model.config, "threshold", DEFAULT_THRESHOLD) if several else DEFAULT_THRESHOLD
    decided_by = None if threshold == "auto" else threshold
    shares = shares_of(data.train.examples, labels) if several else None
    return Classify(labels, problem_type, windows, settings.label_smoothing, weights, decided_by, shares)


CLASSIFY = TaskSpec(
    read=lambda sources, settings, known: read_labeled_texts(sources, settings, known_labels=known),
    make=make_classify,
    known_labels=labels_of_texts,
    next_command='clearstory classify {run} "..."',
)

PAIRS = replace(CLASSIFY, read=read_labeled_pairs, next_command='clearstory classify {run} "..." --pair "..."')
