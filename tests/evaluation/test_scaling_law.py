"""The scaling law: known coefficients are recovered, intervals hold the truth, what runs do not determine is stated."""

from __future__ import annotations

import numpy as np
import pytest

from clearstory.evaluation.scaling_law import (
    ScalingLaw,
    ScalingRun,
    bootstrap_scaling_law,
    fit_scaling_law,
    residual_scatter,
)
from clearstory.recipes.comparison.scaling_analysis import analyse
from clearstory.recipes.comparison.scaling_report import describe_prediction

TRUE = ScalingLaw(E=0.9, A=40.0, alpha=0.45, B=600.0, beta=0.5)
SIZES, AMOUNTS = (20_000, 60_000, 200_000, 600_000), (100_000, 250_000, 600_000, 1_500_000)


def runs(law: ScalingLaw = TRUE, noise: float = 0.0, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> list[ScalingRun]:
    """A run of each size and amount whose loss is that of the law, with noise."""
    rng = np.random.default_rng(seed)
    return [
        ScalingRun(n, d, law.loss(n, d) * float(np.exp(noise * rng.standard_normal()))) for n in sizes for d in AMOUNTS
    ]


@pytest.mark.parametrize("law", [TRUE, ScalingLaw(1.69, 406.4, 0.34, 410.7, 0.28), ScalingLaw(0.3, 5.0, 0.2, 1e4, 0.8)])
def test_known_coefficients_are_recovered(law: ScalingLaw) -> None:
    found = fit_scaling_law(runs(law))
    for name, value in law.to_json().items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-3)
    assert residual_scatter(runs(law), found) < 1e-6


def test_without_a_constant_it_is_that_of_kaplan_et_al() -> None:
    true = ScalingLaw(0.0, 40.0, 0.3, 600.0, 0.4)
    found = fit_scaling_law(runs(true), irreducible=False)
    assert found.E == 0
    assert (found.alpha, found.beta) == pytest.approx((0.3, 0.4), rel=1e-4)


def test_one_run_that_is_far_off_moves_it_little() -> None:
    spoiled = runs()
    spoiled[5] = ScalingRun(spoiled[5].parameters, spoiled[5].tokens, 1.3 * spoiled[5].loss)
    found = fit_scaling_law(spoiled)
    assert found.loss(2_000_000, 5_000_000) == pytest.approx(TRUE.loss(2_000_000, 5_000_000), rel=0.03)


def test_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(6):
        measured = runs(noise=0.01, seed=seed)
        law = fit_scaling_law(measured)
        drawn = [each.loss(1_200_000, 1_500_000) for each in bootstrap_scaling_law(measured, law, draws=50, seed=seed)]
        low, high = np.percentile(drawn, (2.5, 97.5))
        held += low <= TRUE.loss(1_200_000, 1_500_000) <= high
        assert high - low < 0.2
    assert held >= 4


def test_the_best_split_has_the_lowest_loss_of_its_product() -> None:
    n, d = TRUE.optimum(1e12)
    assert n * d == pytest.approx(1e12)
    assert all(TRUE.loss(n * factor, d / factor) > TRUE.loss(n, d) for factor in (0.5, 0.9, 1.1, 2.0))
    assert ScalingLaw(1.0, 0.0, 0.0, 5.0, 0.5).optimum(1e9) == (1, 1e9)
    assert ScalingLaw(1.0, 1e-9, 1e-5, 5.0, 0.5).optimum(1e9)[0] == 1


def test_what_the_runs_say() -> None:
    found = analyse(runs(noise=0.003), 2_000_000, cpu_seconds=100)
    n, d, loss = found["reference"]
    assert (n, d) == (600_000, 1_500_000)
    assert loss == pytest.approx(TRUE.loss(n, d), rel=0.01)
    twice = found["predictions"][0]
    assert (twice.change, twice.parameters, twice.tokens) == ("twice the data", n, 2 * d)
    low, high = twice.interval
    assert low < twice.loss < high
    assert f"{loss:.3f} -> {twice.loss:.3f} ({low:.3f} to {high:.3f}) bits per byte" in describe_prediction(loss, twice)
    check = found["held_out"]
    assert (check.parameters, check.tokens) == (n, d)
    assert check.predicted == pytest.approx(check.measured, rel=0.03)
    assert found["best"][1].cpu_seconds == 1000
    assert found["unknown"] == ()


def test_what_the_runs_do_not_determine_is_stated() -> None:
    narrow = " ".join(analyse(runs(noise=0.003, sizes=(100_000, 150_000, 200_000)), 2_000_000)["unknown"])
    assert "losses beyond the sizes, which cover only a factor of 2.0, from 100,000 to 200,000" in narrow
    assert "E is between" in narrow
    flat = ScalingLaw(1.5, 1e-3, 0.1, 600.0, 0.5)
    assert "whether more parameters would bring anything" in " ".join(
        analyse(runs(flat, noise=0.01), 2_000_000)["unknown"]
    )
    assert "the best use of 10 CPU seconds: the predicted optimum is far from all runs" in " ".join(
        analyse(runs(ScalingLaw(1.5, 1e-9, 0.1, 600.0, 0.5)), 2_000_000, 10)["unknown"]
    )
    worse = runs(noise=0.003)
    worse[-4] = ScalingRun(worse[-4].parameters, worse[-4].tokens, 1.5 * worse[-4].loss)
    assert "with 100,000 tokens that of 600,000 parameters is worse than that of" in " ".join(
        analyse(worse, 2_000_000)["unknown"]
    )
