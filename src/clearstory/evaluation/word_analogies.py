"""Word analogies by vector arithmetic: a is to b as c is to which word?

    3CosAdd   argmax_d  cos(d, b) − cos(d, a) + cos(d, c)                         Mikolov et al. 2013, section 4
    3CosMul   argmax_d  cos⁺(d, b) · cos⁺(d, c) / (cos⁺(d, a) + 0.001)            Levy and Goldberg 2014, eq. 4

with cos⁺ = (cos + 1) / 2. The three words of a question are no answers to it. Cosines are those of blocks of candidates
with the distinct words of all questions, so time is linear in questions times candidates, not times dimensions, and
memory does not grow with either.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

AnalogyMethod = Literal["3cosadd", "3cosmul"]

METHODS: tuple[AnalogyMethod, ...] = ("3cosadd", "3cosmul")

CANDIDATES_AT_ONCE = 4096
"""Vocabulary rows per chunk: 16 MB of cosines with the thousand words of a set."""

EPSILON = 1e-3


def solve_analogies(
    vectors: Float32[np.ndarray, "N W"], questions: Int64[np.ndarray, "Q 3"], names: Int64[np.ndarray, "N"]
) -> dict[AnalogyMethod, Ints]:
    """Row index of the best answer to each question by each method, (Q,).

    `questions` has the rows of a, b and c. Rows with the same number in `names` are spellings of one word: none of a
    question's words is its answer in any spelling.

    >>> vectors = np.array([[1, 0], [1, 1], [-1, 0.1], [-1, 1.2], [0.2, -1]], dtype=np.float32)
    >>> found = solve_analogies(vectors, np.array([[0, 1, 2]]), np.arange(5))  # b - a + c is (-1, 1.1)
    >>> int(found["3cosadd"][0]), int(found["3cosmul"][0])
    (3, 3)
    """
    words, inverse = np.unique(questions, return_inverse=True)
    a, b, c = inverse.reshape(questions.shape).T
    # Questions with the same a and b share what those two add to each candidate's score.
    order = np.lexsort((b, a))
    edges = np.flatnonzero(np.diff(a[order]) | np.diff(b[order])) + 1
    by_name = names.argsort(kind="stable")
    sorted_names = names[by_name]
    groups = [
        (rows, *excluded_answers(names[questions[rows]], by_name, sorted_names)) for rows in np.split(order, edges)
    ]
    question_vectors = unit_rows(vectors[words])
    best = {method: np.full(len(questions), -np.inf, dtype=np.float32) for method in METHODS}
    answers = {method: np.zeros(len(questions), dtype=np.int64) for method in METHODS}
    for start in range(0, len(vectors), CANDIDATES_AT_ONCE):
        cosines = question_vectors @ unit_rows(vectors[start : start + CANDIDATES_AT_ONCE]).T
        shifted = (cosines + 1) / 2
        for rows, candidates, at in groups:
            first = rows[0]
            scores: dict[AnalogyMethod, Floats] = {
                "3cosadd": cosines[c[rows]] + (cosines[b[first]] - cosines[a[first]]),
                "3cosmul": shifted[c[rows]] * (shifted[b[first]] / (shifted[a[first]] + EPSILON)),
            }
            inside = slice(*np.searchsorted(candidates, (start, start + cosines.shape[1])))
            for method, values in scores.items():
                values[at[inside], candidates[inside] - start] = -np.inf
                found = values.argmax(1)
                top = values[np.arange(len(rows)), found]
                better = top > best[method][rows]
                best[method][rows[better]] = top[better]
                answers[method][rows[better]] = start + found[better]
    return answers


def excluded_answers(words: Int64[np.ndarray, "Q 3"], by_name: Ints, sorted_names: Ints) -> tuple[Ints, Ints]:
    """The rows that are spellings of a question's words, in ascending order, and the number of that question.

    `words` are names; `by_name` are all rows in the order of their names, which are `sorted_names`.
    """
    first, last = (np.searchsorted(sorted_names, words.ravel(), side=side) for side in ("left", "right"))
    counts = last - first
    positions = np.arange(counts.sum()) + np.repeat(first - (counts.cumsum() - counts), counts)
    candidates = by_name[positions]
    at = np.repeat(np.arange(words.size) // words.shape[1], counts)
    order = candidates.argsort(kind="stable")
    return candidates[order], at[order]


def unit_rows(vectors: Float32[np.ndarray, "N W"]) -> Floats:
    """The rows of a matrix, each of length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
    return rows
