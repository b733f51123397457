"""Metrics of labels and numbers equal those of scikit-learn and SciPy; intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from clearstory.evaluation.classification import (
    bootstrap_metrics,
    class_scores,
    confusion_matrix,
    multi_label_metrics,
    regression_metrics,
    single_label_metrics,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("labels", [2, 5])
def test_single_label_metrics_are_those_of_scikit_learn(labels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    references = RNG.integers(0, labels, 300)
    predicted = np.where(RNG.random(300) < 0.6, references, RNG.integers(0, labels, 300))
    found = single_label_metrics(predicted, references)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(references, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(references, predicted, average="macro"))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(references, predicted))
    matrix = confusion_matrix(predicted, references, labels)
    assert matrix.tolist() == metrics.confusion_matrix(references, predicted).tolist()
    names = tuple(map(str, range(labels)))
    scores = class_scores(np.diag(matrix), matrix.sum(0), matrix.sum(1), names)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(references, predicted)
    assert [each.precision for each in scores] == pytest.approx(precision.tolist())
    assert [each.recall for each in scores] == pytest.approx(recall.tolist())
    assert [each.f1 for each in scores] == pytest.approx(f1.tolist())
    assert [each.support for each in scores] == support.tolist()


def test_multi_label_metrics_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    references, predicted = RNG.random((200, 4)) < 0.4, RNG.random((200, 4)) < 0.5
    found = multi_label_metrics(predicted, references)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(references, predicted, average="macro"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(references, predicted, average="micro"))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(references, predicted))


def test_correlations_are_those_of_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    references = RNG.integers(0, 6, 150).astype(float)
    predicted = references + RNG.integers(-3, 4, 150)
    found = regression_metrics(predicted, references)
    assert found["spearman"] == pytest.approx(stats.spearmanr(predicted, references).statistic)
    assert found["pearson"] == pytest.approx(stats.pearsonr(predicted, references).statistic)


def test_constant_predictions_have_no_correlation_and_no_nan() -> None:
    constant, references = np.ones(9), np.arange(9.0)
    assert regression_metrics(constant, references) == {
        "spearman": 0.0,
        "pearson": 0.0,
        "rmse": pytest.approx(np.sqrt(np.mean((1 - references) ** 2))),
    }
    one = np.zeros(9, dtype=np.int64)
    assert single_label_metrics(one, one) == {"accuracy": 1.0, "macro_f1": 1.0, "mcc": 0.0}


def test_the_interval_of_an_accuracy_is_near_the_normal_one() -> None:
    references = np.zeros(400, dtype=np.int64)
    predicted = (np.arange(400) < 80).astype(np.int64)  # 320 of 400 right
    low, high = bootstrap_metrics(single_label_metrics, predicted, references)["accuracy"]
    # 0.8 ± 1.96 · √(0.8 · 0.2 / 400) = 0.8 ± 0.0392
    assert (low, high) == pytest.approx((0.7608, 0.8392), abs=0.006)
