"""Analogies, association tests and Spearman's correlation: against plain arithmetic over all candidates."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from clearstory.evaluation.classification import spearman
from clearstory.evaluation.weat import association_test, target_associations
from clearstory.evaluation.word_analogies import CANDIDATES_AT_ONCE, METHODS, solve_analogies, unit_rows


def test_analogies_in_blocks_are_those_of_all_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(CANDIDATES_AT_ONCE + 900, 12)).astype(np.float32)
    questions = rng.integers(0, len(vectors), (60, 3))
    questions[30:, :2] = questions[:30, :2]  # questions that share their first two words
    found = solve_analogies(vectors, questions, np.arange(len(vectors)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    a, b, c = (unit[questions[:, place]] @ unit.T for place in range(3))
    shifted = [(each + 1) / 2 for each in (a, b, c)]
    scores = {"3cosadd": b - a + c, "3cosmul": shifted[1] * shifted[2] / (shifted[0] + 0.001)}
    for method in METHODS:
        values = scores[method]
        np.put_along_axis(values, questions, -np.inf, 1)
        best = np.take_along_axis(values, found[method][:, None], 1)[:, 0]
        assert best == pytest.approx(values.max(1), abs=1e-5)


def test_no_spelling_of_a_question_s_words_is_its_answer() -> None:
    vectors = np.array([[1, 0], [1, 1], [0, 1], [0.02, 1], [-1, 1]], dtype=np.float32)
    questions = np.array([[0, 1, 2]])  # b - a + c is (0, 2)
    assert solve_analogies(vectors, questions, np.arange(5))["3cosadd"].tolist() == [3]
    assert solve_analogies(vectors, questions, np.array([0, 1, 2, 2, 4]))["3cosadd"].tolist() == [4]


def test_the_association_test_is_the_arithmetic_of_the_paper() -> None:
    rng = np.random.default_rng(1)
    x, y, a, b = (rng.normal(size=(count, 6)).astype(np.float32) for count in (4, 4, 3, 5))

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    s = [np.mean([cosine(w, v) for v in a]) - np.mean([cosine(w, v) for v in b]) for w in (*x, *y)]
    assert target_associations(np.concatenate((x, y)), a, b) == pytest.approx(s, abs=1e-6)
    found = association_test(x, y, a, b)
    assert found.effect_size == pytest.approx((np.mean(s[:4]) - np.mean(s[4:])) / np.std(s, ddof=1), abs=1e-5)
    sums = [sum(s[i] for i in chosen) for chosen in combinations(range(8), 4)]
    assert found.permutations == 70
    assert found.exact
    assert found.p_value == pytest.approx(np.mean([each >= sum(s[:4]) - 1e-9 for each in sums]))
    assert association_test(y, x, a, b).effect_size == pytest.approx(-found.effect_size)


def test_many_divisions_are_sampled() -> None:
    rng = np.random.default_rng(2)
    same = rng.normal(size=(24, 5)).astype(np.float32)
    attributes = rng.normal(size=(2, 3, 5)).astype(np.float32)
    found = association_test(same[:12], same[12:], *attributes)
    assert not found.exact
    s = target_associations(same, *attributes)
    order = s.argsort()
    apart = association_test(same[order[12:]], same[order[:12]], *attributes)
    assert apart.p_value == pytest.approx(1 / 100_001)  # of 2.7 million divisions the one with the largest sum
    assert apart.p_value < found.p_value < 1


def test_zeros_have_no_direction() -> None:
    assert unit_rows(np.zeros((1, 3), dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_spearman_with_ties_is_scipy_s() -> None:
    scipy = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 6, 80).astype(float), rng.integers(0, 9, 80).astype(float)
    assert spearman(first, second) == pytest.approx(scipy.spearmanr(first, second).statistic)
