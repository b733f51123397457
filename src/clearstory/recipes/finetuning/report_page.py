"""Report page: the scores of a fine-tuning run as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearstory.lens.rendering.canvas import escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.palette import DARK, LIGHT
from clearstory.lens.views import Curve, Line
from clearstory.recipes.comparison.report import PAGE, css_variables
from clearstory.tasks.base import metric_title
from clearstory.tasks.data.examples import LabeledText
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.training.metrics_log import read_metrics

CONFUSION_LABELS = 30
"""The largest number of labels whose confusion matrix is shown."""


def report_html(
    title: str,
    scores: Mapping[str, TaskEvaluation],
    metrics_file: Path,
    trained_on: Sequence[LabeledText] = (),
) -> str:
    """The page: for validation and test examples the metrics, the scores of each label, the confusion matrix, the
    calibration and the worst mistakes; the metrics of the run's evaluations as a curve; and the examples that it was
    trained on, where they are few.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    for name, each in scores.items():
        examples = f"{each.examples:,} example{'s' * (each.examples != 1)} of {each.data}"
        parts += [f"<h2>{name.capitalize()}</h2><p class=soft>{escape(examples)}</p>", metrics_table(each)]
        parts += detail_sections(each.details)
    curve = metric_curve(metrics_file, next((tuple(each.metrics) for each in scores.values()), ()))
    if curve is not None:
        parts.append(f"<h2>Learning curve</h2><div class=drawing>{render_svg(curve)}</div>")
    if trained_on:
        rows = [
            (file_name(each.location), ", ".join(each.labels), shortened(each.text, each.pair)) for each in trained_on
        ]
        plural = "s" * (len(rows) != 1)
        parts += [f"<h2>{len(rows)} training example{plural}</h2>", html_table(("location", "label", "text"), rows)]
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return PAGE.format(title=escape(title), light=light, dark=dark, body="\n".join(parts))


def metrics_table(scores: TaskEvaluation) -> str:
    """All metrics with their intervals, and the loss."""
    rows = []
    for name, value in scores.metrics.items():
        low, high = scores.intervals.get(name, (value, value))
        rows.append((metric_title(name), f"{value:.4f}", f"{low:.4f} to {high:.4f}"))
    return html_table(("metric", "value", "95 % interval"), [*rows, ("loss", f"{scores.loss:.4f}", "")])


def detail_sections(details: Mapping[str, Any]) -> Iterable[str]:
    """The sections that a task's details have."""
    labels: list[dict[str, Any]] = list(details.get("labels", ()))
    if labels:
        rows = [
            (each["label"], *(f"{each[name]:.4f}" for name in ("precision", "recall", "f1")), f"{each['support']:,}")
            for each in labels
        ]
        yield html_table(("label", "precision", "recall", "F1", "examples"), rows)
    confusion = details.get("confusion")
    if confusion and len(labels) <= CONFUSION_LABELS:
        names = [each["label"] for each in labels]
        matrix = [(name, *map(str, row)) for name, row in zip(names, confusion, strict=True)]
        yield "<h2>Confusion matrix</h2><p class=soft>Rows: true labels. Columns: predicted labels.</p>"
        yield html_table(("", *names), matrix)
    if calibration := details.get("calibration"):
        rows = [(f"{e['probability']:.3f}", f"{e['accuracy']:.3f}", f"{e['count']:,}") for e in calibration["bins"]]
        error = calibration["expected_calibration_error"]
        yield f"<h2>Calibration</h2><p class=soft>Expected calibration error {error:.4f}.</p>"
        if len(rows) > 1:
            yield f"<div class=drawing>{render_svg(reliability_curve(calibration['bins']))}</div>"
        yield html_table(("mean probability", "accuracy", "examples"), rows)
    if mistakes := details.get("mistakes"):
        yield "<h2>Most confident errors</h2>"
        rows = [
            (
                file_name(e["location"]),
                e["label"],
                e["predicted"],
                f"{e['probability']:.3f}",
                shortened(e.get("word"), e["text"], e.get("pair")),
            )
            for e in mistakes
        ]
        yield html_table(("location", "label", "predicted", "probability", "text"), rows)
    yield from text_sections(details)
    titles = {
        "worst": "Examples with the largest errors",
        "least_likely": "Least likely answers",
        "examples": "Examples of generated texts",
        "worst_outputs": "Generated texts with the lowest scores",
    }
    for worst, title in ((details.get(name), title) for name, title in titles.items()):
        if not worst:
            continue
        cells = [
            [f"{each:.4f}" if isinstance(each, float) else shortened(str(each)) for each in row.values()]
            for row in worst
        ]
        yield f"<h2>{title}</h2>"
        yield html_table(list(worst[0]), cells)


def text_sections(details: Mapping[str, Any]) -> Iterable[str]:
    """How generated texts were scored, and the scores of others in their place."""
    if decoding := details.get("decoding"):
        yield f"<p class=soft>Generated with {escape(decoding)}.</p>"
    if note := details.get("note"):
        yield f"<p class=soft>{escape(note)}</p>"
    if signatures := details.get("signatures"):
        yield html_table(("metric", "signature"), list(signatures.items()))
    if baselines := details.get("baselines"):
        names = list(next(iter(baselines.values()))["scores"])
        rows = [(name, *(f"{each['scores'][metric]:.2f}" for metric in names)) for name, each in baselines.items()]
        yield "<h2>Without a model</h2>"
        yield html_table(("in place of the output", *names), rows)
        rows = [
            (name, metric, f"{found['difference']:+.2f}", f"{found['low']:+.2f} to {found['high']:+.2f}")
            for name, each in baselines.items()
            for metric, found in each["compared"].items()
        ]
        if rows:
            yield "<p class=soft>Difference between the model and each baseline, by paired bootstrap.</p>"
            yield html_table(("compared with", "metric", "difference", "95 % interval"), rows)


def shortened(*parts: str | None) -> str:
    """A text after the word that is meant, or before the second text of a pair; up to 300 characters."""
    text = " | ".join(filter(None, parts))
    return text if len(text) <= 300 else f"{text[:299]}…"


def file_name(location: str) -> str:
    """A location without the folder of its file: reviews.csv, line 12."""
    return location.rsplit("/", 1)[-1]


def reliability_curve(bins: Sequence[Mapping[str, float]]) -> Curve:
    """Accuracy against the mean probability of each bin, and the diagonal of a calibrated model."""
    probabilities = tuple(each["probability"] for each in bins)
    lines = (
        Line("model", probabilities, tuple(each["accuracy"] for each in bins)),
        Line("calibrated", probabilities, probabilities),
    )
    return Curve(
        title="Accuracy by probability of the predicted label",
        lines=lines,
        x_label="mean probability",
        y_label="accuracy",
        log_x=False,
    )


def metric_curve(metrics_file: Path, metrics: Sequence[str]) -> Curve | None:
    """These metrics of a run's evaluations against the step; None for fewer than two evaluations."""
    records = [record for record in read_metrics(metrics_file) if record["kind"] == "evaluation"]
    names = [name for name in metrics if all(name in record for record in records)]
    if len(records) < 2 or not names:
        return None
    steps = tuple(float(record["step"]) for record in records)
    lines = tuple(Line(metric_title(name), steps, tuple(float(each[name]) for each in records)) for name in names)
    return Curve(title="Metrics on validation examples", lines=lines, x_label="step", y_label="metric", log_x=False)


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column are its row headers; other columns of numbers are aligned to the right, and those of
    texts have lines that break.
    """
    rows = list(rows)
    columns = list(zip(*rows, strict=True)) or [() for _ in titles]
    classes = ["", *map(cell_class, columns[1:])]
    head = "".join(f"<th{kind}>{escape(title)}</th>" for title, kind in zip(titles, classes, strict=True))
    body = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(others, classes[1:], strict=True))
        body.append(f"<tr><th>{escape(first)}</th>{cells}</tr>")
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def cell_class(cells: Sequence[str]) -> str:
    """The class attribute of a column's cells."""
    if any(map(is_number, cells)):
        return " class=n"
    return " class=text" if any(len(cell) > 60 for cell in cells) else ""


def is_number(cell: str) -> bool:
    """Whether a cell is a number, possibly with thousands separators."""
    return cell.replace(",", "").replace(".", "").lstrip("-").isdecimal()
