"""VectorEvaluation: the scores of vectors on sets of words and sentences. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from clearstory.recipes.notebook_html import html_table
from clearstory.recipes.settings.vector_tasks import VectorTaskKind


@dataclass(frozen=True, kw_only=True)
class VectorScores:
    """The scores of one set.

    Args:
        task: similarity, analogy or weat.
        name: name of its file.
        metrics: spearman, from −1 to 1; the accuracies 3cosadd and 3cosmul, from 0 to 1; effect_size and p_value.
        intervals: 95 % bootstrap intervals of metrics over pairs or questions.
        vectors: the compared vectors.
        examples: number of evaluated pairs, questions or words.
        skipped: number of examples that were skipped, because a word is not in the vocabulary.
        several_tokens: number of words with several tokens, whose vector is the mean of their embeddings.
        details: scores of each section, the candidates of analogies, the sets of a test and the computation of p.
    """

    task: VectorTaskKind
    name: str
    metrics: dict[str, float]
    vectors: str
    examples: int
    skipped: int
    several_tokens: int
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VectorEvaluation:
    """The scores of each set, and the time in seconds."""

    sets: tuple[VectorScores, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All scores as a dictionary for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """The metrics of each set as a table, for notebooks."""
        return html_table((f"{each.name}, {name}", value) for each in self.sets for name, value in each.metrics.items())
