"""Scaling files: a row for each run, the law and its report as text, JSON and a page, and a plot.

results.csv     a row for each run, rewritten after each
results.md      losses by size and amount, the law, and the report
compare.json    the same as data
report.html     the same as a page, with the picture
curves.svg      losses against parameters, a line for each amount, and the law
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clearstory import durable
from clearstory.lens.rendering.canvas import escape
from clearstory.lens.rendering.dispatch import render_svg
from clearstory.lens.rendering.palette import DARK, LIGHT
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.report import PAGE, css_variables
from clearstory.recipes.comparison.result_files import markdown_row, results_csv
from clearstory.recipes.comparison.scaling_analysis import FAR
from clearstory.recipes.comparison.scaling_report import ScalingReport, run_records, scaling_runs

POINTS = 40
"""Points of a line of the law."""


def write_runs(folder: Path, results: Sequence[ModelResult], planned: int) -> None:
    """Write the runs so far, without a law."""
    durable.write_text(folder / "results.csv", results_csv(list(results), "one pass"))
    title = f"# Scaling law: {len(results)} of {planned} runs"
    durable.write_text(folder / "results.md", "\n".join([title, "", *loss_table(results)]) + "\n")
    durable.write_json(folder / "compare.json", {"planned": planned, "runs": run_records(results)})


def write_report(folder: Path, report: ScalingReport) -> None:
    """Write all files of a report."""
    durable.write_text(folder / "results.csv", results_csv(list(report.results), "one pass"))
    durable.write_text(folder / "results.md", report_markdown(report))
    durable.write_json(folder / "compare.json", report.to_json())
    view = law_view(report)
    save_view(view, folder / "curves.svg")
    durable.write_text(folder / "report.html", report_page(report, view))


def title_of(report: ScalingReport) -> str:
    """The title of a report."""
    return f"Scaling law of {report.model} on {report.text}"


def law_view(report: ScalingReport) -> Curve:
    """Bits per byte against parameters: measured, a line for each amount; dashed, the law, also beyond the runs."""
    runs, lines = scaling_runs(report.results), list[Line]()
    sizes = [run.parameters for run in runs]
    ends = np.geomspace(min(sizes), FAR * max(sizes), POINTS)
    for amount in sorted({run.tokens for run in runs}):
        own = sorted((run.parameters, run.loss) for run in runs if run.tokens == amount)
        lines.append(Line(f"{amount:,} tokens", tuple(float(n) for n, _ in own), tuple(loss for _, loss in own)))
        predicted = tuple(report.law.loss(n, amount) for n in ends)
        lines.append(Line("law", tuple(ends.tolist()), predicted, dashed=True, same_color_as=lines[-1].name))
    twice = tuple(report.law.loss(n, 2 * max(run.tokens for run in runs)) for n in ends)
    lines.append(Line("twice the data, predicted", tuple(ends.tolist()), twice, dashed=True))
    return Curve(
        title=title_of(report),
        lines=tuple(lines),
        x_label="parameters",
        y_label="bits per byte of held-out text",
        log_x=True,
        caption=f"Dashed: {report.formula}. Runs scatter around it by {100 * report.scatter:.1f} %.",
    )


def loss_rows(results: Sequence[ModelResult]) -> tuple[list[str], list[list[str]]]:
    """The table of losses: a column for each amount, a row for each size; of several seeds the mean."""
    runs = scaling_runs(results)
    amounts = sorted({run.tokens for run in runs})
    rows = []
    for size in sorted({run.parameters for run in runs}):
        cells = []
        for amount in amounts:
            found = [run.loss for run in runs if (run.parameters, run.tokens) == (size, amount)]
            cells.append(f"{sum(found) / len(found):.4f}" if found else "–")
        rows.append([f"{size:,}", *cells])
    return ["parameters", *(f"{amount:,} tokens" for amount in amounts)], rows


def loss_table(results: Sequence[ModelResult]) -> list[str]:
    """The table of losses as lines of Markdown."""
    header, rows = loss_rows(results)
    return [markdown_row(header), markdown_row(["---:"] * len(header)), *map(markdown_row, rows)]


def coefficient_rows(report: ScalingReport) -> list[list[str]]:
    """The coefficients with their intervals."""
    names = {"E": "E", "A": "A", "alpha": "exponent of N", "B": "B", "beta": "exponent of D"}
    values = report.law.to_json()
    return [
        [title, f"{values[name]:.4g}", "{:.4g} to {:.4g}".format(*report.intervals[name])]
        for name, title in names.items()
    ]


def setup_text(report: ScalingReport) -> str:
    """How the runs were made, in two sentences."""
    seconds = sum(each.cpu_seconds or 0.0 for each in report.results)
    return (
        f"{len(report.results)} of {report.planned} runs, {seconds:,.0f} CPU seconds, tokenizer {report.tokenizer}; "
        f"each uses its tokens once, out of {report.training_tokens:,} training tokens. Intervals are 95 % bootstrap "
        "intervals of the "
        f"law; a single run scatters around it by {100 * report.scatter:.1f} %."
    )


def report_markdown(report: ScalingReport) -> str:
    """The report as Markdown."""
    parts = [f"# {title_of(report)}", "", setup_text(report), "", "Bits per byte of held-out text:", ""]
    parts += [
        *loss_table(report.results),
        "",
        f"    {report.formula}",
        "",
        *(f"- {sentence}" for sentence in report.sentences),
    ]
    if report.unknown:
        parts += ["", "Not determined by these runs:", "", *(f"- {sentence}" for sentence in report.unknown)]
    return "\n".join([*parts, "", "Command:", "", f"    {report.command}"]) + "\n"


def report_page(report: ScalingReport, view: Curve) -> str:
    """The report as a self-contained page."""
    header, rows = loss_rows(report.results)
    parts = [
        f"<h1>{escape(title_of(report))}</h1><p class=soft>{escape(setup_text(report))}</p>",
        f"<pre class=code>{escape(report.formula)}</pre>",
        f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in report.sentences)}</ul>",
        f"<div class=drawing>{render_svg(view)}</div>",
        f"<h2>Bits per byte of held-out text</h2>{page_table(header, rows)}",
        f"<h2>Coefficients</h2>{page_table(('', 'value', '95 % interval'), coefficient_rows(report))}",
    ]
    if report.unknown:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.unknown)
        parts.append(f"<h2>Not determined by these runs</h2><ul>{items}</ul>")
    machine = ", ".join(f"{name} {value}" for name, value in (report.machine or {}).items())
    parts.append(
        f"<h2>Reproduce</h2><pre class=code>{escape(report.command)}</pre><p class=soft>Measured on: "
        f"{escape(machine)}.</p>"
    )
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return PAGE.format(title=escape(title_of(report)), light=light, dark=dark, body="\n".join(parts))


def page_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a page."""
    head = "".join(f"<th scope=col class=n>{escape(each)}</th>" for each in header)
    body = "".join(f"<tr>{''.join(f'<td class=n>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
