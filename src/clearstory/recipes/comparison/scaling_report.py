"""Scaling report: the law of a text and a model as data and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearstory.evaluation.scaling_law import ScalingLaw, ScalingRun
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.scaling_analysis import BestSplit, HeldOutRun, Interval, ScalingPrediction


@dataclass(frozen=True)
class ScalingReport:
    """A scaling law of a text and a model.

    Args:
        text: name of the text.
        model: the scaled model.
        tokenizer: its tokenizer.
        training_tokens: tokens of all training text.
        results: the finished runs.
        planned: number of planned runs.
        law: the fitted law, in bits per byte.
        intervals: 95 % interval of each coefficient.
        scatter: standard deviation of single runs around the law, relative to the loss.
        reference: parameters, tokens and predicted loss of the largest run.
        predictions: predicted losses for more parameters and more tokens than in the largest run.
        best: optimal allocation of the compute of all runs together, and of ten times as much.
        held_out: the check on the largest run; None if there are too few other runs.
        unknown: quantities that the runs do not determine, in sentences.
        command: the command that repeats the runs.
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
        """The results in sentences, the most important first."""
        parameters, tokens, loss = self.reference
        sentences = [
            f"the largest run, {parameters:,} parameters on {tokens:,} tokens, has {loss:.3f} bits per byte according "
            "to the law"
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
    passes = f", {split.passes:.1f} epochs of the text" if split.passes > 1 else ""
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
        f"validation: fitted without the largest run, the law predicts {check.predicted:.3f} for it, measured "
        f"{check.measured:.3f} "
        f"({off:+.1f} %), {inside} the 95 % interval of one run ({low:.3f} to {high:.3f})"
    )


def short(number: float) -> str:
    """A number with two or three digits and its unit.

    >>> short(1234567), short(45_600)
    ('1.2M', '46k')
    """
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
