"""Scaling analysis: the law of finished runs with its uncertainty, predictions, the optimal allocation of a budget, a
check on the largest run, and the quantities that the runs do not determine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearstory.evaluation.scaling_law import (
    COEFFICIENTS,
    ScalingLaw,
    ScalingRun,
    bootstrap_scaling_law,
    fit_scaling_law,
    residual_scatter,
)

Interval = tuple[float, float]

CHANGES = (("twice the data", 1, 2), ("twice the parameters", 2, 1), ("twice both", 2, 2),
           ("ten times the data", 1, 10), ("ten times the parameters", 10, 1), ("ten times both", 10, 10))  # fmt: skip
"""Predictions: factors of the parameters and tokens of the largest run."""

FAR = 4
"""Factor beyond the largest run from which on a prediction is marked as far from all measurements."""

OUTSIDE = 100
"""Factor beyond the runs from which on a best split is not given."""

NARROW = 8
"""Ratio of the largest to the smallest size or amount under which the runs cover little."""


@dataclass(frozen=True)
class ScalingPrediction:
    """The predicted loss of a model that is not trained yet, with its 95 % interval; `far` from all runs or not."""

    change: str
    parameters: float
    tokens: float
    loss: float
    interval: Interval
    far: bool


@dataclass(frozen=True)
class BestSplit:
    """The parameters and tokens of a compute budget with the lowest predicted loss, with 95 % intervals.

    The budget is `cpu_seconds` at the mean speed of all runs. `passes` is how often the training text would be read;
    the law is of text that is read once.
    """

    cpu_seconds: float
    parameters: float
    parameters_interval: Interval
    tokens: float
    tokens_interval: Interval
    loss: float
    loss_interval: Interval
    passes: float


@dataclass(frozen=True)
class HeldOutRun:
    """The largest run, predicted by the law of all others: its loss, and the 95 % interval of one run."""

    parameters: int
    tokens: int
    measured: float
    predicted: float
    interval: Interval


def analyse(
    runs: Sequence[ScalingRun], training_tokens: int, cpu_seconds: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """The law of runs, with everything that follows from it, under the names of ScalingReport.

    `cpu_seconds` is the CPU time of all runs together.
    """
    law = fit_scaling_law(runs)
    laws = bootstrap_scaling_law(runs, law, seed=seed)

    def interval(value: Callable[[ScalingLaw], float]) -> Interval:
        low, high = np.percentile([value(each) for each in laws], (2.5, 97.5))
        return float(low), float(high)

    largest = max(runs, key=lambda run: (run.parameters * run.tokens, run.parameters))
    n, d = largest.parameters, largest.tokens
    top_n, top_d = max(run.parameters for run in runs), max(run.tokens for run in runs)
    predictions = tuple(
        ScalingPrediction(
            change, n * by_n, d * by_d, law.loss(n * by_n, d * by_d),
            interval(lambda each, at=(n * by_n, d * by_d): each.loss(*at)),  # type: ignore[misc]
            n * by_n > FAR * top_n or d * by_d > FAR * top_d,
        )
        for change, by_n, by_d in CHANGES
    )  # fmt: skip
    spent = sum(run.parameters * run.tokens for run in runs)
    splits = [best_split(law, interval, times * spent, times * cpu_seconds, training_tokens) for times in (1, 10)]
    best = tuple(each for each in splits if is_near(each, runs))
    return {
        "law": law,
        "intervals": {name: interval(lambda each, at=name: getattr(each, at)) for name in law.to_json()},  # type: ignore[misc]
        "scatter": residual_scatter(runs, law),
        "reference": (n, d, law.loss(n, d)),
        "predictions": predictions,
        "best": best,
        "held_out": check_largest(runs, largest, seed),
        "unknown": (
            *unknowns(runs, law, interval, training_tokens),
            *(
                f"the best use of {each.cpu_seconds:,.0f} CPU seconds: the predicted optimum is far from all runs"
                for each in splits
                if each not in best
            ),
        ),
    }


def best_split(
    law: ScalingLaw,
    interval: Callable[[Callable[[ScalingLaw], float]], Interval],
    product: float,
    cpu_seconds: float,
    training_tokens: int,
) -> BestSplit:
    """The best split of a product of parameters and tokens, to which compute is proportional (Kaplan et al. 2020,
    section 2.1).
    """
    n, d = law.optimum(product)
    return BestSplit(
        cpu_seconds,
        n,
        interval(lambda each: each.optimum(product)[0]),
        d,
        interval(lambda each: each.optimum(product)[1]),
        law.loss(n, d),
        interval(lambda each: each.loss(*each.optimum(product))),
        d / training_tokens,
    )


def is_near(split: BestSplit, runs: Sequence[ScalingRun]) -> bool:
    """Whether a split lies within OUTSIDE times the sizes and amounts of the runs."""

    def near(value: float, measured: Sequence[int]) -> bool:
        return min(measured) / OUTSIDE <= value <= OUTSIDE * max(measured)

    return near(split.parameters, [run.parameters for run in runs]) and near(split.tokens, [run.tokens for run in runs])


def check_largest(runs: Sequence[ScalingRun], largest: ScalingRun, seed: int) -> HeldOutRun | None:
    """The largest run predicted by the law of all others; None if those are too few."""
    others = [run for run in runs if (run.parameters, run.tokens) != (largest.parameters, largest.tokens)]
    if len(others) <= COEFFICIENTS:
        return None
    at = largest.parameters, largest.tokens
    law = fit_scaling_law(others)
    scatter, rng = residual_scatter(others, law), np.random.default_rng(seed)
    drawn = [
        each.loss(*at) * np.exp(scatter * rng.standard_normal())
        for each in bootstrap_scaling_law(others, law, seed=seed)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    measured = [run.loss for run in runs if (run.parameters, run.tokens) == at]
    return HeldOutRun(*at, sum(measured) / len(measured), law.loss(*at), (float(low), float(high)))


def unknowns(
    runs: Sequence[ScalingRun],
    law: ScalingLaw,
    interval: Callable[[Callable[[ScalingLaw], float]], Interval],
    training_tokens: int,
) -> list[str]:
    """Quantities that the runs do not determine, in sentences."""
    sentences = []
    for name, values in (("sizes", [run.parameters for run in runs]), ("amounts", [run.tokens for run in runs])):
        ratio = max(values) / min(values)
        if ratio < 0.95 * NARROW:  # amounts are rounded to whole batches
            sentences.append(
                f"losses beyond the {name}, which cover only a factor of {ratio:.1f}, from {min(values):,} to "
                f"{max(values):,}; use a factor of {NARROW} or more"
            )
    smallest = min(run.loss for run in runs)
    low, high = interval(lambda each: each.E)
    if low < 0.1 * smallest or high - low > 0.5 * smallest:
        sentences.append(f"the irreducible loss: E is between {low:.2f} and {high:.2f}")
    largest = max(runs, key=lambda run: run.parameters * run.tokens)
    scatter = residual_scatter(runs, law)
    for name, by_n, by_d in (("parameters", 10, 1), ("data", 1, 10)):
        before = law.loss(largest.parameters, largest.tokens)
        low, high = interval(
            lambda each, n=by_n, d=by_d: (  # type: ignore[misc]
                each.loss(largest.parameters * n, largest.tokens * d) / each.loss(largest.parameters, largest.tokens)
            )
        )
        if high > 1 - scatter:
            sentences.append(
                f"whether more {name} would bring anything: ten times as many give between {before * low:.3f} and "
                f"{before * high:.3f} bits per byte, and single runs scatter by {100 * scatter:.1f} %"
            )
    worse = [
        (small, large)
        for small in runs
        for large in runs
        if large.parameters > small.parameters
        and large.tokens == small.tokens
        and large.loss > small.loss * (1 + 2 * scatter)
    ]
    if worse:
        small, large = max(worse, key=lambda pair: pair[1].loss / pair[0].loss)
        sentences.append(
            f"overfitting of large models to little text: with {large.tokens:,} tokens that of {large.parameters:,} "
            f"parameters is worse than that of {small.parameters:,} ({large.loss:.3f} and {small.loss:.3f}), and the "
            "law only falls with the size"
        )
    if max(run.tokens for run in runs) > 1.01 * training_tokens:
        sentences.append("the loss after more than one epoch, which some runs have")
    return sentences
