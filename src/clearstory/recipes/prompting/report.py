"""Report of prompting: accuracy against the number of examples, with intervals over draws, baselines and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from clearstory.evaluation.classification import interval_of_mean
from clearstory.lens.rendering.canvas import escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.palette import DARK, LIGHT
from clearstory.lens.views import Curve, Line
from clearstory.recipes.comparison.report import PAGE, css_variables
from clearstory.recipes.finetuning.report_page import html_table
from clearstory.recipes.notebook_html import html_table as notebook_table
from clearstory.recipes.prompting.examples import PromptData


@dataclass(frozen=True)
class PromptScore:
    """The accuracy of one draw of examples.

    Args:
        answers: answering method: likelihood, calibrated, generated.
        shots: number of examples in the prompt.
        draw: index of the draw, from 0.
        accuracy: share of correctly answered rows.
        unanswered: number of rows whose generated text does not start with a candidate.
    """

    answers: str
    shots: int
    draw: int
    accuracy: float
    unanswered: int = 0


@dataclass(frozen=True)
class PromptMean:
    """The mean accuracy over the draws of one number of examples, with its 95 % interval by Student's t.

    Without examples there is one draw only, and no interval.
    """

    answers: str
    shots: int
    draws: int
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class PromptReport:
    """Result of prompting.

    Args:
        scores: the accuracy of every draw.
        rows: number of rows evaluated in each draw.
        chance: the expected accuracy of a random candidate.
        majority: the accuracy of the most frequent label of the examples; None if each row has its own choices.
        data: name of the evaluated data.
        prompt: the prompt of one row with the largest number of examples.
        notes: notes on the files.
        seconds: time of all draws.
    """

    scores: tuple[PromptScore, ...]
    rows: int
    chance: float
    majority: float | None
    data: str
    prompt: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def means(self) -> tuple[PromptMean, ...]:
        """Means over draws, for each answering method and number of examples."""
        found = []
        for answers in dict.fromkeys(each.answers for each in self.scores):
            for shots in sorted({each.shots for each in self.scores}):
                values = [e.accuracy for e in self.scores if (e.answers, e.shots) == (answers, shots)]
                interval = None
                if len(values) > 1:
                    low, high = interval_of_mean(values)
                    interval = max(0.0, low), min(1.0, high)
                found.append(PromptMean(answers, shots, len(values), fmean(values), interval))
        return tuple(found)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """For each answering method, one sentence that compares its best number of examples with the baselines."""
        baseline, name = self.chance, "chance"
        if self.majority is not None and self.majority > self.chance:
            baseline, name = self.majority, "the majority label"
        found = []
        for answers in dict.fromkeys(each.answers for each in self.scores):
            own = [each for each in self.means if each.answers == answers]
            best = max(own, key=lambda each: each.mean)
            low, high = best.interval or (0.0, 1.0)
            interval = f" ({low:.3f} to {high:.3f})" if best.interval else ""
            than = "above" if low > baseline else "below" if high < baseline else "not different from"
            beside = (
                f"{than} {name} {baseline:.3f}" if best.interval else f"{name} {baseline:.3f}, one draw, no interval"
            )
            found.append(f"{answers}: best with {best.shots} examples, accuracy {best.mean:.3f}{interval}, {beside}")
        return tuple(found)

    def curve(self) -> Curve:
        """Plot of accuracy against the number of examples; dashed lines are interval limits, and the baselines."""
        lines: list[Line] = []
        for answers in dict.fromkeys(each.answers for each in self.scores):
            own = [each for each in self.means if each.answers == answers]
            x = tuple(float(each.shots) for each in own)
            lines.append(Line(answers, x, tuple(each.mean for each in own)))
            known = [(float(each.shots), each.interval) for each in own if each.interval is not None]
            for end in (0, 1):
                ends = tuple(interval[end] for _, interval in known)
                name = f"{answers}, {('low', 'high')[end]}"
                lines.append(Line(name, tuple(at for at, _ in known), ends, dashed=True, same_color_as=answers))
        shots = sorted({float(each.shots) for each in self.scores})
        for name, value in (("majority label", self.majority), ("chance", self.chance)):
            if value is not None:
                lines.append(Line(name, tuple(shots), (value,) * len(shots), dashed=True))
        return Curve(
            title="Accuracy by number of examples", lines=tuple(lines), x_label="examples shown", y_label="accuracy"
        )

    def to_json(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return {
            "data": self.data,
            "rows": self.rows,
            "chance": self.chance,
            "majority": self.majority,
            "verdicts": list(self.verdicts),
            "means": [asdict(each) for each in self.means],
            "scores": [asdict(each) for each in self.scores],
            "prompt": self.prompt,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def _repr_html_(self) -> str:
        """Means with their intervals, for notebooks."""
        return notebook_table((f"{each.answers}, {each.shots}", mean_text(each)) for each in self.means)


def mean_text(mean: PromptMean) -> str:
    """A mean with its interval."""
    if mean.interval is None:
        return f"{mean.mean:.3f}"
    return f"{mean.mean:.3f} ({mean.interval[0]:.3f} to {mean.interval[1]:.3f})"


def baselines(data: PromptData) -> tuple[float, float | None]:
    """The accuracy of a random candidate, and of the most frequent label of the examples where there are labels."""
    chance = fmean(1 / len(each.candidates) for each in data.test)
    if not data.labels or not data.shown:
        return chance, None
    frequent = Counter(each.answer for each in data.shown).most_common(1)[0][0]
    return chance, fmean(each.answer == frequent for each in data.test)


def report_page(title: str, report: PromptReport) -> str:
    """The page: the verdicts, the curve, a table of all means, and a prompt."""
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(each)}.</p>" for each in report.verdicts)]
    draws = max(each.draws for each in report.means)
    about = f"{report.rows:,} rows of {report.data}; means of {draws} draws, 95 % intervals by Student's t"
    parts.append(f"<p class=soft>{escape(about)}.</p>")
    parts.append(f"<div class=drawing>{render_svg(report.curve())}</div>")
    ways = list(dict.fromkeys(each.answers for each in report.means))
    rows = [(f"{shots}", *cells_of(report.means, ways, shots)) for shots in sorted({e.shots for e in report.means})]
    parts.append(html_table(("examples", *ways), rows))
    prompt = "\n".join(escape(line) for line in report.prompt.split("\n"))
    parts.append(f'<h2>A prompt</h2><pre style="white-space: pre-wrap">{prompt}</pre>')
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return PAGE.format(title=escape(title), light=light, dark=dark, body="\n".join(parts))


def cells_of(means: Sequence[PromptMean], ways: Sequence[str], shots: int) -> list[str]:
    """The means of one number of examples, one for each way of answering."""
    by_key = {(each.answers, each.shots): each for each in means}
    return [mean_text(by_key[way, shots]) for way in ways]
