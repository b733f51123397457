"""Tag: a label of each word: part of speech, or entities in BIO. Devlin et al. 2019, section 5.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadInput, CannotDo
from clearstory.evaluation.classification import (
    Floats,
    Ints,
    bootstrap_metrics,
    calibration,
    class_scores,
    confusion_matrix,
    macro_f1,
)
from clearstory.evaluation.entities import OUTSIDE, entity_metrics, entity_types, find_entities
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.heads import ClassificationHead, TokenClassifier
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.class_weights import check_class_weights, weights_by_count
from clearstory.tasks.classify import WORST_MISTAKES
from clearstory.tasks.data.chunk_tags import is_chunk_scheme
from clearstory.tasks.data.examples import DataSplits, LabeledWords
from clearstory.tasks.data.labeled_words import read_labeled_words
from clearstory.tasks.head_labels import describe_head
from clearstory.tasks.text_windows import TextWindows
from clearstory.tasks.word_predictions import NO_PREDICTION, WordPredictions, predict_words
from clearstory.tasks.word_windows import WordWindow, WordWindows
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import LossTerm, LossTerms


@dataclass(frozen=True)
class TagRow:
    """A window of a sentence, and the label ids of all words of the sentence."""

    window: WordWindow
    targets: tuple[int, ...]
    example: int

    @property
    def length(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self.window.ids)


@dataclass(frozen=True)
class TaggedBatch(TensorBatch):
    """Sentences with a label at the first token of each word.

    Args:
        tokens: input ids, (B, T).
        targets: label ids, (B, T); IGNORE_INDEX at all other tokens.
    """

    targets: Int[Tensor, "B T"]


@dataclass(frozen=True)
class Tag:
    """The labeling of words.

    Args:
        labels: names of the labels in the order of their ids.
        windows: how sentences become inputs; None for a model whose tokens are words.
        entities: whether labels mark entities in BIO, which are scored as wholes.
        label_smoothing: share of each target spread over all labels.
        class_weights: weight of each label in the loss, of mean 1 over the training words; None for equal ones.
    """

    labels: tuple[str, ...]
    windows: WordWindows | None
    entities: bool = False
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    name = "tag"
    loss_unit = "word"

    def __post_init__(self) -> None:
        check_class_weights(self.class_weights, self.labels)

    @property
    def metric(self) -> str:
        """f1 of entities; accuracy where each label is for itself."""
        return "f1" if self.entities else "accuracy"

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The backbone with a classifier of tokens; one that has a head for these labels is kept.

        Raises BadInput for a head of another kind or other labels, CannotDo for a model whose tags are counted.
        """
        if has_capability(backbone, Capability.TAGS):
            raise CannotDo(
                "this model is a hidden Markov model of tags, which is counted from all examples at once; give hmm "
                "as the model, and all files"
            )
        if isinstance(backbone, ClassificationHead):
            if backbone.config.label_level != "token" or backbone.config.labels != self.labels:
                names = ", ".join(self.labels[:10]) + ", ..." * (len(self.labels) > 10)
                raise BadInput(
                    f"the model has a head for {describe_head(backbone.config)}, and the data are for "
                    f"{len(self.labels)} labels of each word ({names}); pass --new_head to train another one"
                )
            return backbone
        return TokenClassifier(backbone, self.labels, tag_scheme="bio" if self.entities else "")

    def encode(self, examples: Sequence[LabeledWords]) -> list[TagRow]:
        """The windows of every sentence, whose words are joined by spaces, with the label ids of its words."""
        rows = []
        for row, example in zip(self.rows_without_windows(examples), examples, strict=True):
            assert self.windows is not None, "words are not split into tokens"
            windows = self.windows.of_words(example.words, example.location)
            rows += [replace(row, window=window) for window in windows]
        return rows

    def rows_without_windows(self, examples: Sequence[LabeledWords]) -> list[TagRow]:
        """The label ids of the words of every sentence. Raises BadInput for an unknown tag."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        rows = []
        for index, example in enumerate(examples):
            if unknown := [tag for tag in example.tags if tag not in numbers]:
                raise BadInput(
                    f"{example.location or 'a sentence'} has the tag {unknown[0][:60]!r}, and the tags are "
                    f"{', '.join(self.labels[:20])}"
                )
            rows.append(TagRow(WordWindow((), (), ()), tuple(numbers[tag] for tag in example.tags), index))
        return rows

    def batch(self, rows: Sequence[TagRow]) -> TaggedBatch:
        """Rows as one padded batch."""
        tokens = TokenBatch.from_sequences([row.window.ids for row in rows])
        targets = torch.full(tokens.ids.shape, IGNORE_INDEX, dtype=torch.long)
        for number, row in enumerate(rows):
            of_words = [row.targets[word] for word in row.window.words]
            targets[number, list(row.window.positions)] = torch.tensor(of_words, dtype=torch.long)
        return TaggedBatch(tokens, targets)

    def count_targets(self, batch: TaggedBatch) -> dict[str, int]:
        """Number of words."""
        return {"labels": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: TaggedBatch) -> LossTerms:
        """Cross-entropy of the label of each word, at its first token."""
        logits = cast(TokenClassifier, model).class_logits(batch.tokens)
        scored = batch.targets != IGNORE_INDEX
        chosen, targets = logits[scored].float(), batch.targets[scored]
        nats = F.cross_entropy(chosen, targets, label_smoothing=self.label_smoothing, reduction="none")
        if self.class_weights is not None:
            nats = nats * nats.new_tensor(self.class_weights)[targets]
        return {"labels": LossTerm(nats.sum(), len(targets))}

    def predict(self, model: nn.Module, rows: Sequence[TagRow]) -> list[WordPredictions]:
        """The predictions for the words of each sentence."""
        sentences = [list(group) for _, group in groupby(rows, key=lambda row: row.example)]
        windows = [[row.window for row in sentence] for sentence in sentences]
        return predict_words(model, windows, [len(sentence[0].targets) for sentence in sentences])

    def fit_decision(self, model: nn.Module, predictions: Sequence[WordPredictions], rows: Sequence[TagRow]) -> Self:
        """The task itself, which has no threshold."""
        return self

    def score(self, predictions: Sequence[WordPredictions], rows: Sequence[TagRow]) -> dict[str, float]:
        """Metrics by name, and the mean loss of the words that have a prediction."""
        values = np.concatenate([each.probabilities for each in predictions])
        right = values[np.arange(len(values)), np.concatenate(self.targets(rows))][values.any(1)]
        loss = -np.log(right + np.finfo(np.float64).tiny).mean() if len(right) else 0.0
        return {"loss": float(loss), **self.metrics(self.counts(predictions, rows))}

    def intervals(
        self, predictions: Sequence[WordPredictions], rows: Sequence[TagRow]
    ) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over sentences."""
        counts = self.counts(predictions, rows)
        return bootstrap_metrics(self.metrics, counts, np.arange(len(counts)))

    def metrics(self, counts: Any, _: Any = None) -> dict[str, float]:
        """Metrics by name from the counts of sentences."""
        if self.entities:
            return entity_metrics(counts)
        right, guessed, true = counts.sum(0).T
        return {"accuracy": float(right.sum() / true.sum()), "macro_f1": macro_f1(right, guessed, true)}

    def counts(self, predictions: Sequence[WordPredictions], rows: Sequence[TagRow]) -> Ints:
        """How many of each of `classes` are predicted rightly, predicted, and right, (N, classes, 3)."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        counts = np.zeros((len(predictions), len(numbers), 3), np.int64)
        for prediction, targets, count in zip(predictions, self.targets(rows), counts, strict=True):
            predicted = prediction.ids
            if self.entities:
                guessed, true = (set(find_entities(self.names(ids))) for ids in (predicted, targets))
                for column, found in enumerate((guessed & true, guessed, true)):
                    np.add.at(count[:, column], [numbers[kind] for kind, _, _ in found], 1)
            else:
                for column, ids in enumerate((targets[predicted == targets], predicted, targets)):
                    np.add.at(count[:, column], ids[ids != NO_PREDICTION], 1)
        return counts

    def names(self, ids: Ints) -> list[str]:
        """The names of the labels of words, O for one without a prediction."""
        return [OUTSIDE if each == NO_PREDICTION else self.labels[each] for each in ids]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Scored classes: the types of entities, or the labels."""
        return entity_types(self.labels) if self.entities else self.labels

    def details(
        self, predictions: Sequence[WordPredictions], rows: Sequence[TagRow], examples: Sequence[LabeledWords]
    ) -> dict[str, Any]:
        """Scores of each type of entity or of each label, the calibration, the worst mistakes; and without entities the
        confusion matrix, whose rows are right labels.
        """
        right, guessed, true = self.counts(predictions, rows).sum(0).T
        references, predicted = np.concatenate(self.targets(rows)), np.concatenate([each.ids for each in predictions])
        probabilities = np.concatenate([each.of_labels for each in predictions])
        there = np.concatenate([each.predicted for each in predictions])
        confusion = confusion_matrix(predicted[there], references[there], len(self.labels)).tolist()
        return {
            "labels": [asdict(each) for each in class_scores(right, guessed, true, self.classes)],
            **({} if self.entities else {"confusion": confusion}),
            "calibration": calibration(probabilities[there], predicted[there] == references[there]),
            "mistakes": self.mistakes(probabilities, predicted, references, examples),
        }

    def mistakes(
        self, probabilities: Floats, predicted: Ints, references: Ints, examples: Sequence[LabeledWords]
    ) -> list[dict[str, Any]]:
        """The words with a wrong label that the model is surest of, at most WORST_MISTAKES."""
        words = [(example, word) for example in examples for word in range(len(example.words))]
        wrong = np.flatnonzero((predicted != references) & (probabilities > 0))
        worst = wrong[np.argsort(-probabilities[wrong], kind="stable")][:WORST_MISTAKES].tolist()
        return [
            {
                "word": words[at][0].words[words[at][1]],
                "text": words[at][0].text,
                "location": words[at][0].location,
                "label": self.labels[int(references[at])],
                "predicted": self.labels[int(predicted[at])],
                "probability": float(probabilities[at]),
            }
            for at in worst
        ]

    def targets(self, rows: Sequence[TagRow]) -> list[Ints]:
        """The label ids of the words of each sentence."""
        return [np.array(next(iter(group)).targets) for _, group in groupby(rows, key=lambda row: row.example)]


def make_tag(data: DataSplits[LabeledWords], model: Any, tokenizer: Tokenizer, settings: TaskSettings) -> Tag:
    """The task for these data, whose sentences become inputs of this model."""
    labels, weights = data.train.label_names, None
    if settings.class_weights:
        tags = [tag for example in data.train.examples for tag in example.tags]
        counts = np.array([tags.count(label) for label in labels], dtype=np.float64)
        weights = weights_by_count(settings.class_weights, counts, len(tags))
    windows = TextWindows.of_model(model, tokenizer, settings.truncate, settings.stride)
    entities = data.train.scheme == "bio" or is_chunk_scheme(labels)
    return Tag(labels, WordWindows(windows), entities, settings.label_smoothing, weights)


def labels_of_words(model: Any) -> tuple[str, ...] | None:
    """The labels of words that a model's head predicts; None for a model without such a head."""
    if not isinstance(model, ClassificationHead) or model.config.label_level != "token":
        return None
    return model.config.labels


TAG = TaskSpec(
    read=lambda sources, settings, known: read_labeled_words(sources, settings, known_labels=known),
    make=make_tag,
    known_labels=labels_of_words,
    next_command='clearstory tag {run} "..."',
)
