"""Descriptions of classification heads and their labels, for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.head_config import ProblemType


def labels_of_texts(model: Any) -> tuple[str, ...] | None:
    """The labels of texts that a model's head predicts; None for a model without such a head."""
    if not has_capability(model, Capability.CLASSIFIER) or model.config.label_level != "text":
        return None
    return None if model.config.problem_type == "regression" else model.config.labels


def describe_head(config: Any) -> str:
    """Description of the predictions of a classification head, in one phrase."""
    if config.label_level == "token":
        return f"{len(config.labels)} labels of each token"
    return describe_labels(config.problem_type, config.labels)


def describe_labels(problem_type: ProblemType, labels: Sequence[str]) -> str:
    """Description of the labels of a text, in one phrase."""
    if problem_type == "regression":
        return "a number of each text"
    names = ", ".join(labels[:10]) + ", ..." * (len(labels) > 10)
    return f"{'one' if problem_type == 'single_label_classification' else 'any'} of {len(labels)} labels ({names})"
