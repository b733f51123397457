"""Scaling display: shows the runs of a scaling law while they are trained, and the results."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from clearstory.cli.command import Output
from clearstory.cli.comparison_display import ComparisonDisplay
from clearstory.cli.training_display import format_count
from clearstory.lens.rendering.canvas import sanitize
from clearstory.recipes.comparison.compare import ComparisonStarted
from clearstory.recipes.comparison.scaling import ScalingEvent
from clearstory.recipes.comparison.scaling_files import loss_rows, setup_text
from clearstory.recipes.comparison.scaling_report import ScalingReport


def show_scaling(events: Iterator[ScalingEvent], output: Output) -> ScalingReport:
    """Show the events until the last one, the report, and return it; always remove the progress bar."""
    display, report = ComparisonDisplay(output.stderr), None
    try:
        for event in events:
            if isinstance(event, ScalingReport):
                report = event
            elif isinstance(event, ComparisonStarted):
                display.runs = event.runs
                if event.note:
                    output.stderr.print(event.note, style="yellow")
                output.stderr.print(f"{format_count(len(event.runs), 'run')}, {event.budget}: {event.text}")
                output.stderr.print(f"results so far: {event.folder / 'results.csv'}", style="dim")
            else:
                display.show(event)
    finally:
        display.close()
    assert report is not None, "a scaling law ends with its report or an error"
    return report


def print_scaling(report: ScalingReport, console: Console) -> None:
    """Print the losses by size and amount, the law, the results and undetermined quantities."""
    header, rows = loss_rows(report.results)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    for name in header:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()
    console.print(report.formula, soft_wrap=True)
    console.print(sanitize(setup_text(report)), style="dim")
    for sentence in report.sentences:
        console.print(sanitize(sentence), soft_wrap=True)
    for sentence in report.unknown:
        console.print(f"not determined: {sanitize(sentence)}", style="yellow", soft_wrap=True)
    if report.folder is not None:
        console.print(f"report: {report.folder / 'report.html'}; one row per run: results.csv")
