"""Word-embedding association test (WEAT): are two sets of targets associated with two sets of attributes?

For a target w and the attribute sets A and B, eq. 1-3 of Caliskan, Bryson and Narayanan 2017:

    s(w) = mean over a in A of cos(w, a) − mean over b in B of cos(w, b)
    effect size = (mean of s over X − mean of s over Y) / standard deviation of s over X and Y
    p = share of all divisions of X and Y into two sets of the same sizes whose means of s differ by at least as much

The standard deviation is that of a sample (n − 1), as in the authors' code. p is one-sided; it is exact where there are
few divisions, and else estimated from random ones, of which the observed division is one (Phipson and Smyth 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from clearstory.evaluation.word_analogies import unit_rows

EXACT_PERMUTATIONS = 200_000
"""Up to this number of partitions, all are counted: two sets of 10 have 184,756."""

SAMPLED_PERMUTATIONS = 100_000

TIE = 1e-12
"""Tolerance for sums of the same numbers in another order."""


@dataclass(frozen=True)
class AssociationTest:
    """Result of a word-embedding association test.

    Args:
        effect_size: from −2 to 2; above 0 where X is closer to A, and Y to B.
        p_value: one-sided, of the hypothesis that X is not closer to A than Y is.
        permutations: number of divisions that p comes from.
        exact: whether these are all there are.
    """

    effect_size: float
    p_value: float
    permutations: int
    exact: bool


def association_test(
    x: Float32[np.ndarray, "X W"],
    y: Float32[np.ndarray, "Y W"],
    a: Float32[np.ndarray, "A W"],
    b: Float32[np.ndarray, "B W"],
    seed: int = 0,
) -> AssociationTest:
    """The test of two sets of target vectors and two sets of attribute vectors; `seed` is that of random divisions.

    >>> x, y = np.array([[1.0, 0.1], [1.0, 0.3]]), np.array([[0.1, 1.0], [0.2, 1.0]])
    >>> found = association_test(x, y, np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    >>> round(found.effect_size, 2), found.p_value, found.permutations  # 1 of the 6 divisions: the observed one
    (1.72, 0.166..., 6)
    """
    associations = target_associations(np.concatenate((x, y)), a, b)
    spread = float(associations.std(ddof=1))
    difference = float(associations[: len(x)].mean() - associations[len(x) :].mean())
    p_value, permutations, exact = permutation_p_value(associations, len(x), np.random.default_rng(seed))
    return AssociationTest(difference / spread if spread else 0.0, p_value, permutations, exact)


def target_associations(
    targets: Float32[np.ndarray, "N W"], a: Float32[np.ndarray, "A W"], b: Float32[np.ndarray, "B W"]
) -> Float64[np.ndarray, "N"]:
    """s of each target: how much closer it is to A than to B."""
    targets, a, b = (unit_rows(each).astype(np.float64) for each in (targets, a, b))
    associations: npt.NDArray[np.float64] = targets @ (a.mean(0) - b.mean(0))
    return associations


def permutation_p_value(
    associations: Float64[np.ndarray, "N"], count: int, rng: np.random.Generator
) -> tuple[float, int, bool]:
    """The fraction of partitions whose first set of `count` targets has at least the observed sum, the number of
    partitions, and whether they are exhaustive.

    With the sizes fixed, the difference of the means rises with the sum of the first set.
    """
    observed = associations[:count].sum() - TIE
    total = comb(len(associations), count)
    if total <= EXACT_PERMUTATIONS:
        sums = np.array([sum(each) for each in combinations(associations.tolist(), count)])
        return float((sums >= observed).mean()), total, True
    above = 1
    for _ in range(SAMPLED_PERMUTATIONS // 1000):
        # The first `count` of a random order.
        order = rng.random((1000, len(associations))).argpartition(count, axis=1)[:, :count]
        above += int((associations[order].sum(1) >= observed).sum())
    return above / (SAMPLED_PERMUTATIONS + 1), SAMPLED_PERMUTATIONS, False
