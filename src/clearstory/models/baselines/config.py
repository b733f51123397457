"""Configs of classifiers without a network: BagOfWordsConfig and NGramClassifierConfig. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from clearstory.errors import BadSetting
from clearstory.models.config import Config
from clearstory.models.head_config import DEFAULT_THRESHOLD, ProblemType, check_labels, check_threshold


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Fields of both baseline configs.

    Args:
        vocab: vocabulary size in tokens.
        labels: names of the labels, in the order of the logits.
        problem_type: what is predicted, as in transformers.
        threshold: the probability from which on one of several labels is predicted.
    """

    vocab: int
    labels: tuple[str, ...]
    problem_type: ProblemType = "single_label_classification"
    threshold: float = DEFAULT_THRESHOLD

    label_level = "text"
    context = None
    start_token_id = None

    @property
    def architecture(self) -> str:
        """The family."""
        return self.family

    @property
    def family(self) -> str:
        """The family in one word."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_threshold(self.threshold, self.problem_type)
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")


@dataclass(frozen=True, kw_only=True)
class BagOfWordsConfig(BaselineConfig):
    """Size of a bag of words.

    Args:
        vocab: vocabulary size in words.
        pairs: number of pairs of neighbouring words.
    """

    pairs: int = 0

    @property
    def family(self) -> str:
        """The family in one word: bag-of-words."""
        return "bag-of-words"

    @property
    def summary(self) -> str:
        """Number of words and pairs in one phrase."""
        return f"TF-IDF of {self.vocab:,} words and {self.pairs:,} pairs of words, {len(self.labels)} labels"

    @property
    def outputs(self) -> int:
        """Linear models: one for each label, and one alone where a text has one of two."""
        return 1 if self.problem_type == "single_label_classification" and len(self.labels) == 2 else len(self.labels)


@dataclass(frozen=True, kw_only=True)
class NGramClassifierConfig(BaselineConfig):
    """The n-gram models of a class-conditional n-gram classifier.

    Args:
        vocab: vocabulary size in tokens.
        configs: the config of each label's n-gram model.
    """

    configs: tuple[Config, ...] = ()

    @property
    def family(self) -> str:
        """The family in one word: ngram-classifier."""
        return "ngram-classifier"

    @property
    def summary(self) -> str:
        """The order of the n-gram models and number of labels in one phrase."""
        order = getattr(self.configs[0], "order", 1) if self.configs else 1
        return f"a {order}-gram model of the texts of each of {len(self.labels)} labels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.configs) != len(self.labels) or self.problem_type != "single_label_classification":
            raise BadSetting(
                f"configs are {len(self.configs)} and labels {len(self.labels)}, of problem_type {self.problem_type}; "
                "an n-gram classifier has one model per label, and one label per text"
            )
        if any(each.family != "ngram" or each.vocab != self.vocab for each in self.configs):
            raise BadSetting(f"configs are not those of n-gram models with a vocabulary of {self.vocab:,}")


BASELINE_CONFIGS: dict[str, type[BaselineConfig]] = {
    "BagOfWords": BagOfWordsConfig,
    "NGramClassifier": NGramClassifierConfig,
}
"""Configs by the name of their model class."""
