"""ClassifierConfig: the config of a model with a classification head: backbone, labels, problem type."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

from clearstory.errors import BadSetting
from clearstory.models.config import Config

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""Meaning of a text's logits: one of several labels, any number of labels, or predicted numbers."""

HeadPooling = Literal["pooler", "mean", "last"]
"""The vector of a text. pooler: first token's hidden state after a linear layer and tanh (Devlin et al. 2019); mean:
mean of all hidden states; last: hidden state of the last token.
"""

TagScheme = Literal["", "bio"]
"""Meaning of token labels: bio, entities of several words; "", independent labels."""

MAX_LABELS = 2**16
"""Maximum number of labels; the largest known label sets have some thirty thousand."""

DEFAULT_THRESHOLD = 0.5
"""Default probability above which a label of a multi-label model is predicted."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Config of a backbone without its language modelling heads, and of a classification head on its hidden states.

    Args:
        backbone: config of the backbone.
        labels: names of the labels, in the order of the logits.
        pooling: the vector of a text whose labels are predicted; None for a head that labels each token.
        problem_type: what is predicted, as in transformers.
        classifier_dropout: dropout rate of the classifier's input in training.
        tag_scheme: bio where the labels of tokens are known to be BIO; predicted tags are then the most likely sequence
            without an I- that continues nothing. Models of transformers do not say, so theirs are argmaxes.
        threshold: the probability from which on one of several labels is predicted.
    """

    backbone: Config
    labels: tuple[str, ...]
    pooling: HeadPooling | None = None
    problem_type: ProblemType = "single_label_classification"
    classifier_dropout: float = 0.0
    tag_scheme: TagScheme = ""
    threshold: float = DEFAULT_THRESHOLD

    @property
    def label_level(self) -> Literal["text", "token"]:
        """What is labelled: each text or each token."""
        return "token" if self.pooling is None else "text"

    @property
    def classifier_bias(self) -> bool:
        """Whether the classifier has a bias; in transformers, that of the last token has none."""
        return self.pooling != "last"

    @property
    def vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self.backbone.vocab

    @property
    def family(self) -> str:
        """The family of the backbone in one word."""
        return self.backbone.family

    @property
    def architecture(self) -> str:
        """The architecture of the backbone: encoder or decoder."""
        return self.backbone.architecture

    @property
    def context(self) -> int | None:
        """Longest sequence in tokens; None for unlimited."""
        return self.backbone.context

    @property
    def start_token_id(self) -> int | None:
        """None: a classifier does not generate."""
        return None

    @property
    def layers(self) -> int:
        """Layers of the backbone."""
        layers: int = getattr(self.backbone, "layers", 1)
        return layers

    @property
    def width(self) -> int:
        """Width of the hidden states that the head reads."""
        return hidden_width(self.backbone)

    @property
    def summary(self) -> str:
        """Size of the backbone and number of labels in one phrase."""
        count = len(self.labels)
        return f"{self.backbone.summary}, {count} label{'s' * (count != 1)} of each {self.label_level}"

    def with_backbone(self, **changes: Any) -> ClassifierConfig:
        """The config with some fields of its backbone changed."""
        backbone: Any = self.backbone
        return replace(self, backbone=replace(backbone, **changes))

    def __post_init__(self) -> None:
        check_labels(self.labels)
        one_label = self.problem_type == "single_label_classification" and self.pooling is not None
        if one_label and len(self.labels) < 2:
            raise BadSetting(
                f"labels are {list(self.labels)}, but a single label distinguishes nothing; give at least 2, or set "
                "problem_type to regression or multi_label_classification"
            )
        if self.pooling is None and self.problem_type != "single_label_classification":
            raise BadSetting(f"problem_type is {self.problem_type}, but each token has one label; leave it out")
        if self.pooling is not None and self.tag_scheme:
            raise BadSetting(f"tag_scheme is {self.tag_scheme}, but labels of texts do not mark entities; leave it out")
        check_threshold(self.threshold, self.problem_type)
        if self.pooling == "pooler" and self.architecture != "encoder":
            raise BadSetting(
                f"pooling is pooler, which only encoders have, but the model is a {self.architecture}; use last"
            )
        if self.pooling == "last" and self.architecture == "encoder":
            raise BadSetting(
                "pooling is last, but an encoder's last token does not represent the text; use pooler or mean"
            )
        if not 0 <= self.classifier_dropout < 1:
            raise BadSetting(f"classifier_dropout is {self.classifier_dropout}; it must be at least 0 and under 1")


def hidden_width(config: Any) -> int:
    """Width of a model's hidden states: that of a recurrent model's last layer."""
    width: int = config.units[-1] if hasattr(config, "units") else config.width
    return width


def backbone_config(config: Config) -> Any:
    """The config of a classifier's backbone; of any other model its own."""
    return config.backbone if isinstance(config, ClassifierConfig) else config


def replace_fields(config: Any, **changes: Any) -> Any:
    """A config with some fields changed; for a classifier, those of its backbone."""
    return config.with_backbone(**changes) if isinstance(config, ClassifierConfig) else replace(config, **changes)


def check_threshold(threshold: float, problem_type: ProblemType) -> None:
    """Raise BadSetting for a threshold that is no probability between 0 and 1, or without several labels."""
    if not 0 < threshold < 1:
        raise BadSetting(f"threshold is {threshold:g}; it must be above 0 and under 1")
    if threshold != DEFAULT_THRESHOLD and problem_type != "multi_label_classification":
        raise BadSetting(
            f"threshold is {threshold:g}, and problem_type {problem_type}; only multi-label models have a threshold"
        )


def check_labels(labels: tuple[str, ...]) -> None:
    """Raise BadSetting for no labels, too many, or duplicates."""
    if not 1 <= len(labels) <= MAX_LABELS:
        raise BadSetting(f"labels are {len(labels):,}; give 1 to {MAX_LABELS:,}")
    if len(set(labels)) < len(labels):
        [(twice, _)] = Counter(labels).most_common(1)
        raise BadSetting(f"labels has {twice[:60]!r} more than once; give each label its own name")
