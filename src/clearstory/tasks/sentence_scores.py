"""Scores of sentence vectors: retrieval of positives, correlation with scores, accuracy of triplets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearstory.evaluation.classification import Floats, Metrics, pearson, spearman
from clearstory.evaluation.retrieval import retrieval_metrics
from clearstory.tasks.data.examples import SimilarityExample

WORST_EXAMPLES = 20
"""Examples that a report shows."""


@dataclass(frozen=True)
class SentencePrediction:
    """Loss, similarities and rank of an example.

    Args:
        loss: the loss; in multiple_negatives_ranking, among the positives of all examples.
        similarity: cosine of anchor and positive.
        other: cosine of anchor and negative; NaN without one.
        rank: rank of the positive among those of all examples, from 1; 0 where they are not ranked.
        retrieved: index of the example whose positive is nearest to the anchor.
    """

    loss: float
    similarity: float
    other: float
    rank: int
    retrieved: int


METRICS: dict[str, Metrics] = {
    "pairs": lambda ranks, _: retrieval_metrics(ranks),
    "scores": lambda cosines, scores: {"spearman": spearman(cosines, scores), "pearson": pearson(cosines, scores)},
    "triplets": lambda cosines, others: {"triplet_accuracy": float((cosines > others).mean())},
}
"""Metrics of each kind of data, of what `metric_inputs` returns. The first one selects the best model of a run."""

SELECTED_BY = {"pairs": "mrr", "scores": "spearman", "triplets": "triplet_accuracy"}


def metric_inputs(
    kind: str, predictions: Sequence[SentencePrediction], scores: Sequence[float]
) -> tuple[Floats, Floats]:
    """Ranks, twice; cosines and scores; or cosines of positives and of negatives; (N,) each."""
    if kind == "pairs":
        ranks = np.array([each.rank for each in predictions], dtype=np.float64)
        return ranks, ranks
    others = [each.other for each in predictions] if kind == "triplets" else scores
    return np.array([each.similarity for each in predictions]), np.array(others, dtype=np.float64)


def worst_examples(
    kind: str,
    predictions: Sequence[SentencePrediction],
    scores: Sequence[float],
    examples: Sequence[SimilarityExample],
) -> list[dict[str, Any]]:
    """The examples with the largest errors, at most WORST_EXAMPLES, as values for JSON."""
    found = []
    for prediction, score, example in zip(predictions, scores, examples, strict=True):
        distance, more = distance_and_reason(kind, prediction, score, example, examples)
        if distance > 0:
            shared = {"location": example.location, "text": example.anchor, "positive": example.positive}
            found.append((distance, {**shared, "similarity": round(prediction.similarity, 4), **more}))
    found.sort(key=lambda each: -each[0])
    return [described for _, described in found[:WORST_EXAMPLES]]


def distance_and_reason(
    kind: str,
    prediction: SentencePrediction,
    score: float,
    example: SimilarityExample,
    examples: Sequence[SimilarityExample],
) -> tuple[float, dict[str, Any]]:
    """The error of an example, above 0 if it is wrong, and a description of the error."""
    if kind == "pairs":
        return prediction.rank - 1, {"rank": prediction.rank, "nearest": examples[prediction.retrieved].positive}
    if kind == "triplets":
        more = {"negative": example.negative, "similarity of the negative": round(prediction.other, 4)}
        return prediction.other - prediction.similarity, more
    return abs(prediction.similarity - score), {"score": example.score}
