"""Scaling report: the fitted law with its uncertainty, and what it says: predictions, the best split of a budget, a
check on the largest run, and what the runs do not determine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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
from clearstory.recipes.comparison.leaderboard import ModelResult

Interval = tuple[float, float]

CHANGES = (("twice the data", 1, 2), ("twice the parameters", 2, 1), ("twice both", 2, 2),
           ("ten times the data", 1, 10), ("ten times the parameters", 10, 1), ("ten times both", 10, 10))  # fmt: skip
"""What is predicted: factors of parameters and tokens, from the largest run on."""

FAR = 4
"""Factor beyond the largest run from which on a prediction is marked as far from all measurements."""

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


@dataclass(frozen=True)
class ScalingReport:
    """A scaling law of a text and a model.

    Args:
        text: name of the text.
        model: the model that is scaled.
        tokenizer: its tokenizer.
        training_tokens: tokens of all training text.
        results: the finished runs.
        planned: number of planned runs.
        law: the fitted law, in bits per byte.
        intervals: 95 % interval of each coefficient.
        scatter: standard deviation of single runs around the law, relative to the loss.
        reference: parameters, tokens and predicted loss of the largest run.
        predictions: what changes of it would bring.
        best: the best split of the compute of all runs together, and of ten times as much.
        held_out: the check on the largest run; None with too few others.
        unknown: what the runs do not determine, in sentences.
        command: the command that repeats it.
        machine: the machine and the versions.
        folder: results folder.
    """

    text: str
    model: str
    tokenizer: str
    training_tokens: int
    results: tuple[ModelResult, ...]
    planned: int
    law: ScalingLaw
    intervals: Mapping[str, Interval]
    scatter: float
    reference: tuple[int, int, float]
    predictions: tuple[ScalingPrediction, ...]
    best: tuple[BestSplit, ...]
    held_out: HeldOutRun | None
    unknown: tuple[str, ...]
    command: str = ""
    machine: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def formula(self) -> str:
        """The law in one line."""
        law = self.law
        return (
            f"bits per byte = {law.E:.3f} + {digits(law.A)} / N^{law.alpha:.3f} + {digits(law.B)} / D^{law.beta:.3f}   "
            "(N parameters, D tokens)"
        )

    @property
    def sentences(self) -> list[str]:
        """What the law says, the most important first."""
        parameters, tokens, loss = self.reference
        sentences = [
            f"the largest run, {parameters:,} parameters on {tokens:,} tokens, has {loss:.3f} bits per byte by the law"
        ]
        sentences += [f"{each.change}: {describe_prediction(loss, each)}" for each in self.predictions]
        sentences += [describe_split(each) for each in self.best]
        if self.held_out is not None:
            sentences.append(describe_check(self.held_out))
        return sentences

    def to_json(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        values = {
            name: value
            for name, value in vars(self).items()
            if name not in ("results", "law", "predictions", "best", "held_out", "reference")
        }
        parameters, tokens, loss = self.reference
        return {
            **values,
            "folder": None if self.folder is None else str(self.folder),
            "law": self.law.to_json(),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "reference": {"parameters": parameters, "tokens": tokens, "loss": loss},
            "predictions": [asdict(each) for each in self.predictions],
            "best": [asdict(each) for each in self.best],
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "sentences": self.sentences,
            "runs": run_records(self.results),
        }


def digits(number: float) -> str:
    """A number with three digits, or all before the point.

    >>> digits(33.9172), digits(1849.7)
    ('33.9', '1,850')
    """
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def run_records(results: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """Results as dictionaries for JSON, without what a run of a law does not have."""
    return [
        {name: value for name, value in each.to_json().items() if value not in (None, "", (), [])} for each in results
    ]


def describe_prediction(loss: float, prediction: ScalingPrediction) -> str:
    """A prediction in one phrase."""
    low, high = prediction.interval
    far = ", far from all runs" if prediction.far else ""
    return f"{loss:.3f} -> {prediction.loss:.3f} ({low:.3f} to {high:.3f}) bits per byte{far}"


def describe_split(split: BestSplit) -> str:
    """The best split of a budget in one sentence."""
    (low, high), (least, most) = split.parameters_interval, split.loss_interval
    passes = f", {split.passes:.1f} times all of the text" if split.passes > 1 else ""
    return (
        f"best use of {split.cpu_seconds:,.0f} CPU seconds: about {short(split.parameters)} parameters "
        f"({short(low)} to {short(high)}) on {short(split.tokens)} tokens{passes}: {split.loss:.3f} "
        f"({least:.3f} to {most:.3f}) bits per byte"
    )


def describe_check(check: HeldOutRun) -> str:
    """How well the largest run is predicted by the others, in one sentence."""
    (low, high), off = check.interval, 100 * (check.predicted / check.measured - 1)
    inside = "inside" if low <= check.measured <= high else "outside"
    return (
        f"check: without the largest run the law predicts {check.predicted:.3f} for it, measured {check.measured:.3f} "
        f"({off:+.1f} %), {inside} the 95 % interval of one run ({low:.3f} to {high:.3f})"
    )


def short(number: float) -> str:
    """A number with two or three digits and its unit.

    >>> short(1234567), short(45_600), short(float("inf"))
    ('1.2M', '46k', 'any number of')
    """
    if not np.isfinite(number):
        return "any number of"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}" if number < 10 * size else f"{number / size:,.0f}{unit}"
    return f"{number:.0f}"


def scaling_runs(results: Sequence[ModelResult]) -> list[ScalingRun]:
    """The runs that the law is fitted to."""
    return [
        ScalingRun(each.parameters, each.tokens, each.bits_per_byte)
        for each in results
        if each.parameters and each.tokens and each.bits_per_byte
    ]


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
    best = tuple(best_split(law, interval, times * spent, times * cpu_seconds, training_tokens) for times in (1, 10))
    return {
        "law": law,
        "intervals": {name: interval(lambda each, at=name: getattr(each, at)) for name in law.to_json()},  # type: ignore[misc]
        "scatter": residual_scatter(runs, law),
        "reference": (n, d, law.loss(n, d)),
        "predictions": predictions,
        "best": best,
        "held_out": check_largest(runs, largest, seed),
        "unknown": tuple(unknowns(runs, law, interval, training_tokens)),
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
        law.loss(n, d) if n and d else law.E,
        interval(lambda each: each.loss(*(max(1.0, value) for value in each.optimum(product)))),
        d / training_tokens,
    )


def check_largest(runs: Sequence[ScalingRun], largest: ScalingRun, seed: int) -> HeldOutRun | None:
    """The largest run predicted by the law of all others; None where those are too few."""
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
    """What the runs do not determine, in sentences."""
    sentences = []
    for name, values in (("sizes", [run.parameters for run in runs]), ("amounts", [run.tokens for run in runs])):
        ratio = max(values) / min(values)
        if ratio < NARROW:
            sentences.append(
                f"what is beyond the {name}, which cover a factor of {ratio:.1f} only, from {min(values):,} to "
                f"{max(values):,}; {NARROW} or more would tell more"
            )
    smallest = min(run.loss for run in runs)
    low, high = interval(lambda each: each.E)
    if low < 0.1 * smallest or high - low > 0.5 * smallest:
        sentences.append(f"the loss that no size and no amount would go below: E is between {low:.2f} and {high:.2f}")
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
        and large.loss > small.loss * (1 + scatter)
    ]
    if worse:
        small, large = max(worse, key=lambda pair: pair[1].loss / pair[0].loss)
        sentences.append(
            f"what large models make of little text: with {large.tokens:,} tokens that of {large.parameters:,} "
            f"parameters is worse than that of {small.parameters:,} ({large.loss:.3f} and {small.loss:.3f}), and the "
            "law only falls with the size"
        )
    if max(run.tokens for run in runs) > 1.01 * training_tokens:
        sentences.append("the loss of text that is read more than once, as some runs have")
    return sentences
