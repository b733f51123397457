"""Metrics of predicted labels and numbers, as scikit-learn and SciPy compute them, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.metrics import CONFIDENCE, RESAMPLES, percentile_interval

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""0.975 quantiles of Student's t with 1 to 14 degrees of freedom; 1.96 is used for more."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Metrics = Callable[[Any, Any], dict[str, float]]


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall, F1 and support of one label."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def single_label_metrics(predicted: Ints, references: Ints) -> dict[str, float]:
    """accuracy, macro_f1 and mcc (Matthews 1975; Gorodkin 2004 for several classes) of predicted label ids, (N,).

    The macro average is over the labels that are predicted or right at least once.

    >>> single_label_metrics(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    {'accuracy': 0.75, 'macro_f1': 0.733..., 'mcc': 0.577...}
    """
    matrix = confusion_matrix(predicted, references)
    return {
        "accuracy": float((predicted == references).mean()),
        "macro_f1": macro_f1(np.diag(matrix), matrix.sum(0), matrix.sum(1)),
        "mcc": matthews_correlation(matrix),
    }


def multi_label_metrics(predicted: Bools, references: Bools) -> dict[str, float]:
    """macro_f1, micro_f1 and subset accuracy of predicted label sets, (N, labels).

    >>> multi_label_metrics(np.array([[True, False], [True, True]]), np.array([[True, False], [False, True]]))
    {'macro_f1': 0.833..., 'micro_f1': 0.8, 'accuracy': 0.5}
    """
    right, guessed, true = (predicted & references).sum(0), predicted.sum(0), references.sum(0)
    return {
        "macro_f1": macro_f1(right, guessed, true),
        "micro_f1": f1_score(right.sum(), guessed.sum(), true.sum()),
        "accuracy": float((predicted == references).all(1).mean()),
    }


def regression_metrics(predicted: Floats, references: Floats) -> dict[str, float]:
    """spearman, pearson (0 where either is constant) and rmse of predicted numbers, (N,).

    >>> regression_metrics(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    {'spearman': 1.0, 'pearson': 0.981..., 'rmse': 0.577...}
    """
    return {
        "spearman": spearman(predicted, references),
        "pearson": pearson(predicted, references),
        "rmse": float(np.sqrt(np.mean((predicted - references) ** 2))),
    }


def confusion_matrix(predicted: Ints, references: Ints, labels: int | None = None) -> Ints:
    """Confusion matrix: counts of true labels (rows) by predicted labels (columns)."""
    count = labels or 1 + int(max(predicted.max(initial=0), references.max(initial=0)))
    return np.bincount(references * count + predicted, minlength=count * count).reshape(count, count)


def class_scores(right: Ints, guessed: Ints, true: Ints, labels: tuple[str, ...]) -> list[ClassScore]:
    """The scores of each label from its counts of true positives, predictions and references."""
    return [
        ClassScore(
            label,
            precision=float(hits / n_guessed) if n_guessed else 0.0,
            recall=float(hits / n_true) if n_true else 0.0,
            f1=f1_score(hits, n_guessed, n_true),
            support=int(n_true),
        )
        for label, hits, n_guessed, n_true in zip(labels, right, guessed, true, strict=True)
    ]


def f1_score(right: Any, guessed: Any, true: Any) -> float:
    """F1 = 2 · right / (guessed + true); 0 where there is neither."""
    total = guessed + true
    return float(2 * right / total) if total else 0.0


def macro_f1(right: Ints, guessed: Ints, true: Ints) -> float:
    """Mean F1 of the labels that are predicted or true at least once."""
    total = guessed + true
    there = total > 0
    return float((2 * right[there] / total[there]).mean()) if there.any() else 0.0


def matthews_correlation(matrix: Ints) -> float:
    """Matthews correlation coefficient of a confusion matrix; 0 if all references or all predictions have one label."""
    counts = matrix.astype(np.float64)
    n, right, guessed, true = counts.sum(), np.trace(counts), counts.sum(0), counts.sum(1)
    spread = (n**2 - guessed @ guessed) * (n**2 - true @ true)
    return float((right * n - guessed @ true) / np.sqrt(spread)) if spread else 0.0


def calibration(probabilities: Floats, right: Bools, bins: int = 10) -> dict[str, Any]:
    """Accuracy by predicted probability in bins of equal width, and the expected calibration error (Guo et al. 2017,
    eq. 3).

    >>> found = calibration(np.array([0.75, 0.75, 0.95, 0.95]), np.array([True, True, True, False]))
    >>> found["expected_calibration_error"]  # (2 · |1 − 0.75| + 2 · |0.5 − 0.95|) / 4
    0.35
    """
    numbers = np.minimum((probabilities * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(numbers):
        inside = numbers == number
        rows.append(
            {
                "probability": float(probabilities[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "count": int(inside.sum()),
            }
        )
    error = sum(row["count"] * abs(row["accuracy"] - row["probability"]) for row in rows) / max(1, len(right))
    return {"bins": rows, "expected_calibration_error": round(float(error), 12)}


def pearson(first: Floats, second: Floats) -> float:
    """Correlation of two series of numbers; 0 where either is constant."""
    x, y = first - first.mean(), second - second.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else 0.0


def spearman(first: Floats, second: Floats) -> float:
    """Correlation of the ranks of two series of numbers, ties sharing their mean rank. Spearman 1904."""
    return pearson(mean_ranks(first), mean_ranks(second))


def mean_ranks(values: Floats) -> Floats:
    """The rank of each value from 1; equal values have the mean of their ranks.

    >>> mean_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def bootstrap_metrics(
    metrics: Metrics, predicted: Any, references: Any, *, samples: int = RESAMPLES, seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """The 95 % interval of each metric: percentile bootstrap over examples (Efron 1979); none for fewer than two.

    >>> right = np.array([0, 1] * 50)
    >>> bootstrap_metrics(single_label_metrics, right, right)["accuracy"]
    (1.0, 1.0)
    """
    count, rng = len(references), np.random.default_rng(seed)
    if count < 2:
        return {}
    draws = []
    for _ in range(samples):
        chosen = rng.integers(0, count, count)
        draws.append(metrics(predicted[chosen], references[chosen]))
    return {name: percentile_interval(np.array([draw[name] for draw in draws]), CONFIDENCE) for name in draws[0]}


def interval_of_mean(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of some values, by Student's t.

    >>> interval_of_mean([0.25, 0.5, 0.75])  # 0.5 ± 4.303 · 0.25 / √3
    (-0.121..., 1.121...)
    """
    n = len(values)
    quantile = STUDENT_T[n - 2] if n - 2 < len(STUDENT_T) else 1.96
    half = quantile * stdev(values) / math.sqrt(n)
    return fmean(values) - half, fmean(values) + half
