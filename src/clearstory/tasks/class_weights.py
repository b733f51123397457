"""Class weights in the loss, and label frequencies, from the number of training examples of each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clearstory.errors import BadSetting
from clearstory.evaluation.classification import Floats
from clearstory.models.head_config import ProblemType
from clearstory.tasks.data.examples import LabeledText


def class_weights_of(
    weights: str | tuple[float, ...], examples: Sequence[LabeledText], labels: Sequence[str], problem_type: ProblemType
) -> tuple[float, ...] | None:
    """The weight of each label in the loss; None for equal ones.

    balanced: n / (labels · n of the label), as in scikit-learn; where a text can have several labels, the number of
    texts without the label over those with it. Given weights of single labels are divided by their mean over the
    examples, so that the learning rate keeps its meaning.
    """
    if not weights:
        return None
    if problem_type == "regression":
        raise BadSetting("training.class_weights is for labels, but the examples have numbers; leave it out")
    counts = np.array([sum(label in example.labels for example in examples) for label in labels], dtype=np.float64)
    several = problem_type == "multi_label_classification"
    return weights_by_count(weights, counts, len(examples), several=several)


def weights_by_count(
    weights: str | tuple[float, ...], counts: Floats, total: int, *, several: bool = False
) -> tuple[float, ...]:
    """The weight of each label in the loss, from its count in `total` texts or words; `several`: whether each can
    have several labels.
    """
    if weights == "balanced":
        values = (total - counts) / np.maximum(counts, 1) if several else total / (len(counts) * np.maximum(counts, 1))
        return tuple(values.tolist())
    values = np.array(weights, dtype=np.float64)
    if not several and len(values) == len(counts):
        values = values * total / (values @ counts)
    return tuple(values.tolist())


def check_class_weights(class_weights: Sequence[float] | None, labels: Sequence[str]) -> None:
    """Raise BadSetting unless there is a weight for each label, or none at all."""
    if class_weights and len(class_weights) != len(labels):
        raise BadSetting(
            f"training.class_weights has {len(class_weights)} numbers, but there are {len(labels)} labels: "
            f"{', '.join(labels[:20])}; give one weight for each"
        )


def shares_of(examples: Sequence[LabeledText], labels: Sequence[str]) -> tuple[float, ...]:
    """The frequency of each label, with half a text added to those with it and to those without.

    >>> examples = [LabeledText("so good", labels=("good", "loud")), LabeledText("fine", labels=("good",))]
    >>> shares_of(examples, ("good", "loud"))  # 2.5 / 3, 1.5 / 3
    (0.833..., 0.5)
    """
    counts = Counter(label for example in examples for label in example.labels)
    return tuple((counts[label] + 0.5) / (len(examples) + 1) for label in labels)
