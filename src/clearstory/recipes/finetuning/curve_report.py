"""Report of a label-efficiency curve: means with intervals over draws, a summary sentence, and the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from clearstory.evaluation.classification import interval_of_mean
from clearstory.lens.rendering.canvas import escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.palette import DARK, LIGHT
from clearstory.lens.views import Curve, Line
from clearstory.recipes.comparison.report import PAGE, css_variables
from clearstory.recipes.finetuning.report_page import html_table
from clearstory.tasks.base import metric_title

FINE_TUNED = "fine-tuned"
"""The name of the model that a curve is about."""


@dataclass(frozen=True)
class CurvePoint:
    """The scores of one model after training on one draw of labeled examples.

    Args:
        model: its name: fine-tuned, or a baseline.
        labels: number of training examples.
        seed: seed of the draw.
        metrics: its metrics on the held-out examples.
        steps: optimizer steps; 0 for a model that is fitted.
        cpu_seconds: CPU time, summed over all threads.
    """

    model: str
    labels: int
    seed: int
    metrics: Mapping[str, float]
    steps: int
    cpu_seconds: float


@dataclass(frozen=True)
class DrawMean:
    """Means of the metrics of one model over the draws of one number of labels, with their 95 % intervals by Student's
    t; a single draw has no interval.
    """

    model: str
    labels: int
    draws: int
    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CurveSummary:
    """The means of all models and numbers of labels; `metric` is the first of the task's."""

    metric: str
    models: tuple[str, ...]
    means: tuple[DrawMean, ...]

    @classmethod
    def of(cls, points: Sequence[CurvePoint], models: Sequence[str]) -> CurveSummary:
        """The summary of points; of models without any, nothing."""
        metric = next(iter(points[0].metrics)) if points else ""
        means = []
        for model in models:
            for labels in sorted({each.labels for each in points if each.model == model}):
                drawn = [each.metrics for each in points if (each.model, each.labels) == (model, labels)]
                values = {name: [each[name] for each in drawn] for name in drawn[0]}
                intervals = {name: interval_of_mean(each) for name, each in values.items() if len(each) > 1}
                averages = {name: fmean(each) for name, each in values.items()}
                means.append(DrawMean(model, labels, len(drawn), averages, intervals))
        return cls(metric, tuple(models), tuple(means))

    def of_model(self, model: str) -> list[DrawMean]:
        """The means of a model by number of labels."""
        return [each for each in self.means if each.model == model]

    def last(self, model: str) -> DrawMean:
        """The means of a model at the largest number of labels."""
        return self.of_model(model)[-1]

    def labels_for(self, model: str, score: float) -> float | None:
        """The number of labels with which a model first has a mean score, interpolated on a logarithmic axis; None
        where it has it nowhere. That of the smallest draw where it is at least as good there.
        """
        points = [(each.labels, each.means[self.metric]) for each in self.of_model(model)]
        if points and points[0][1] >= score:
            return points[0][0]
        for (left, low), (right, high) in pairwise(points):
            if low < score <= high:
                share = (score - low) / (high - low)
                return math.exp(math.log(left) + share * (math.log(right) - math.log(left)))
        return None

    @property
    def claims(self) -> list[str]:
        """A sentence for each baseline: with how many labels the fine-tuned model has the score that the baseline has
        with all.
        """
        return [sentence for model in self.models[1:] for sentence in self.claim(model)]

    def claim(self, baseline: str) -> Iterator[str]:
        """The sentence for one baseline; none without its points."""
        if not self.of_model(baseline) or not self.of_model(FINE_TUNED):
            return
        last, title = self.last(baseline), metric_title(self.metric)
        score, smallest = last.means[self.metric], self.of_model(FINE_TUNED)[0].labels
        needed = self.labels_for(FINE_TUNED, score)
        if needed is None:
            best = max(each.means[self.metric] for each in self.of_model(FINE_TUNED))
            yield (
                f"With {last.labels:,} labels {baseline} reaches {title} {score:.3f}, more than the fine-tuned model "
                f"with any number of labels ({best:.3f})."
            )
            return
        about = f"only {smallest:,}" if needed <= smallest else f"about {rounded(needed):,}"
        times = last.labels / needed
        ratio = f"{times:.1f}" if times < 10 else f"{rounded(times):,}"
        yield (
            f"With {about} labels the fine-tuned model reaches {title} {score:.3f}, which {baseline} reaches with "
            f"{last.labels:,}{f': {ratio} times as many' if times >= 1.05 else ''}."
        )

    def to_json(self) -> dict[str, Any]:
        """The summary as a dictionary for JSON."""
        curve = [
            {
                "model": each.model,
                "labels": each.labels,
                "draws": each.draws,
                "means": dict(each.means),
                "intervals": {name: list(ends) for name, ends in each.intervals.items()},
            }
            for each in self.means
        ]
        return {"metric": self.metric, "claims": self.claims, "curve": curve}


def rounded(number: float) -> int:
    """A number to two digits, as whole.

    >>> rounded(1234.5), rounded(8.4)
    (1200, 8)
    """
    scale: int = 10 ** max(0, len(str(round(number))) - 2)
    return round(number / scale) * scale


def efficiency_curve(summary: CurveSummary) -> Curve:
    """The mean score of each model against the number of labels, with the ends of its intervals as dashed lines."""
    lines: list[Line] = []
    for model in summary.models:
        means = summary.of_model(model)
        x = tuple(float(each.labels) for each in means)
        lines.append(Line(model, x, tuple(each.means[summary.metric] for each in means)))
        for end in (0, 1):
            known = [each for each in means if summary.metric in each.intervals]
            ends = tuple(each.intervals[summary.metric][end] for each in known)
            at = tuple(float(each.labels) for each in known)
            lines.append(Line(f"{model}, {('low', 'high')[end]}", at, ends, dashed=True, same_color_as=model))
    title = metric_title(summary.metric)
    return Curve(title=f"{title} by number of labels", lines=tuple(lines), x_label="labels", y_label=title, log_x=True)


def curve_report_html(title: str, held_out: str, summary: CurveSummary) -> str:
    """The page: the sentences, the curve, and a table of all means with their intervals."""
    draws = max((each.draws for each in summary.means), default=0)
    about = f"Evaluated on {held_out}; means of {draws} random sample{'s' * (draws != 1)} per number of labels"
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(each)}</p>" for each in summary.claims)]
    if draws > 1:
        about += "; dashed lines are the ends of the 95 % intervals of the means (Student's t)"
    parts.append(f"<p class=soft>{escape(about)}.</p>")
    parts.append(f"<div class=drawing>{render_svg(efficiency_curve(summary))}</div>")
    sizes = sorted({each.labels for each in summary.means})
    by_point = {(each.model, each.labels): each for each in summary.means}
    rows = [
        (f"{labels:,}", *(mean_cell(by_point.get((model, labels)), summary.metric) for model in summary.models))
        for labels in sizes
    ]
    parts.append(html_table(("labels", *summary.models), rows))
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return PAGE.format(title=escape(title), light=light, dark=dark, body="\n".join(parts))


def mean_cell(mean: DrawMean | None, metric: str) -> str:
    """A mean with its interval; a dash where it has not been measured."""
    if mean is None:
        return "–"
    value = f"{mean.means[metric]:.3f}"
    if metric not in mean.intervals:
        return value
    low, high = mean.intervals[metric]
    return f"{value} ({low:.3f} to {high:.3f})"
