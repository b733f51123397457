"""Keys of config.json that describe a classification head: its labels, problem type, and dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from clearstory.formats.hf.config_keys import ExternalConfig, check_float, check_int, reject
from clearstory.models.head_config import DEFAULT_THRESHOLD, MAX_LABELS, ClassifierConfig, ProblemType, TagScheme

TAG_SCHEME = "clearstory_tag_scheme"
"""A key of Clearstory; transformers keeps and ignores it."""

THRESHOLD = "clearstory_threshold"
"""Another: the probability from which on one of several labels is predicted."""

LABEL_KEYS = (
    *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "classifier_dropout"),
    *(TAG_SCHEME, THRESHOLD),
)


def read_labels(external: ExternalConfig) -> tuple[str, ...]:
    """The names of the labels in the order of their ids: id2label, and LABEL_0, LABEL_1 ... where it is absent."""
    id2label = external.get("id2label")
    count = next((external[key] for key in ("num_labels", "_num_labels") if external.get(key) is not None), None)
    if id2label is None:
        id2label = {str(id): f"LABEL_{id}" for id in range(check_int("num_labels", count or 2, MAX_LABELS))}
    if not isinstance(id2label, Mapping) or not 1 <= len(id2label) <= MAX_LABELS:
        reject("id2label", id2label, f"it must be an object of 1 to {MAX_LABELS:,} labels by number")
    labels = tuple(id2label.get(str(id)) for id in range(len(id2label)))
    if not all(isinstance(label, str) for label in labels):
        reject("id2label", id2label, "it must have a label for each number from 0")
    if len(set(labels)) < len(labels):
        twice = next(label for index, label in enumerate(labels) if label in labels[:index])
        reject("id2label", id2label, f"it names {str(twice)[:60]!r} more than once")
    if count is not None and count != len(labels):
        reject("num_labels", count, f"but id2label has {len(labels):,}")
    return tuple(map(str, labels))


def read_problem_type(external: ExternalConfig, count: int) -> ProblemType:
    """The problem type; if config.json does not specify it, one label means regression, as in transformers."""
    value = external.get("problem_type")
    if value is None:
        return "regression" if count == 1 else "single_label_classification"
    if value not in get_args(ProblemType):
        reject("problem_type", value, f"supported: {', '.join(get_args(ProblemType))}")
    if value == "single_label_classification" and count < 2:
        reject("problem_type", value, f"but id2label has {count:,} label, and at least 2 are required")
    problem: ProblemType = value
    return problem


def read_dropout(external: ExternalConfig, default: float) -> float:
    """Dropout of the classifier's input; by default that of the class."""
    value = external.get("classifier_dropout")
    return default if value is None else check_float("classifier_dropout", value, 0.0, 0.999)


def read_tag_scheme(external: ExternalConfig) -> TagScheme:
    """The tag scheme of token labels; "" if config.json does not specify it."""
    value = external.get(TAG_SCHEME, "")
    if value not in get_args(TagScheme):
        reject(TAG_SCHEME, value, "supported: bio, or leave it out")
    scheme: TagScheme = value
    return scheme


def read_threshold(external: ExternalConfig, problem_type: ProblemType) -> float:
    """The minimum probability of a predicted label if a text can have several; default: 0.5."""
    value = external.get(THRESHOLD)
    if value is None:
        return DEFAULT_THRESHOLD
    if problem_type != "multi_label_classification":
        reject(THRESHOLD, value, f"but problem_type is {problem_type}")
    return check_float(THRESHOLD, value, 1e-6, 1 - 1e-6)


def label_keys(config: ClassifierConfig) -> dict[str, Any]:
    """The keys for a classification head."""
    return {
        "id2label": {str(id): label for id, label in enumerate(config.labels)},
        "label2id": {label: id for id, label in enumerate(config.labels)},
        **({"problem_type": config.problem_type} if config.label_level == "text" else {}),
        "classifier_dropout": config.classifier_dropout,
        **({TAG_SCHEME: config.tag_scheme} if config.tag_scheme else {}),
        **({THRESHOLD: config.threshold} if config.threshold != DEFAULT_THRESHOLD else {}),
    }
