"""Comparison display: shows the events of a comparison while it runs, and the leaderboard as a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from clearstory.cli.command import Output
from clearstory.cli.training_display import format_count, format_seconds
from clearstory.lens.rendering.canvas import TERMINAL_COLORS, sanitize
from clearstory.lens.views.formatting import format_number
from clearstory.metrics import LIKELIHOOD, PSEUDO_LIKELIHOOD
from clearstory.recipes.comparison.compare import ComparisonEvent, ComparisonStarted, ModelMeasured, ModelProgress
from clearstory.recipes.comparison.leaderboard import Leaderboard, LeaderboardEntry, ModelResult
from clearstory.recipes.training.events import Evaluated, RunPlanned, StepCompleted, TrainingResult, TrainingWarning

WIDE = 110
"""Terminal columns from which the leaderboard has all its columns."""


def show_comparison(events: Iterator[ComparisonEvent], output: Output) -> Leaderboard:
    """Show the events of a comparison until it ends and return the leaderboard; always remove the progress bar."""
    display = ComparisonDisplay(output.stderr)
    try:
        for event in events:
            display.show(event)
    finally:
        display.close()
    assert display.leaderboard is not None, "a comparison ends with its Leaderboard or an error"
    return display.leaderboard


class ComparisonDisplay:
    """On a terminal, the models ranked so far with a progress bar for the current run below; else a line for each
    finished run.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[note]}"))
        self.bar = self.progress.add_task("", note="")
        self.live: Live | None = None
        self.run = ""
        self.number = 0  # of the current run, from 1
        self.runs: tuple[str, ...] = ()
        self.evaluation: Evaluated | None = None
        self.leaderboard: Leaderboard | None = None

    def show(self, event: ComparisonEvent) -> None:
        """Print one event."""
        match event:
            case ComparisonStarted():
                self.runs = event.runs
                if event.note:
                    self.console.print(event.note, style="yellow")
                runs = "" if len(event.runs) == event.models else f" in {len(event.runs)} runs"
                self.console.print(
                    f"{format_count(event.models, 'model')}{runs}, {event.budget}; "
                    f"evaluated on {event.bytes:,} bytes, {event.text}"
                )
                self.console.print(f"results so far: {event.folder / 'results.md'} and results.csv", style="dim")
            case ModelProgress():
                self.show_progress(event)
            case ModelMeasured():
                self.show_result(event.result, event.reused)
            case Leaderboard():
                self.leaderboard = event
                self.update_live()

    def show_progress(self, event: ModelProgress) -> None:
        """Update the progress bar, or print the name of a run that has started."""
        progress = event.progress
        if progress is None:
            self.run, self.number, self.evaluation = event.run, event.number, None
            if not self.console.is_terminal:
                self.console.print(f"{sanitize(event.run)} ({event.number} of {len(self.runs)})")
        match progress:
            case RunPlanned():
                self.update_bar(0, progress.steps, "starting")
            case Evaluated():
                self.evaluation = progress
            case StepCompleted():
                parts = [f"step {progress.step:,}/{progress.steps:,}"]
                if self.evaluation is not None and self.evaluation.bits_per_byte is not None:
                    parts.append(f"≈ {self.evaluation.bits_per_byte:.3f} bits per byte")
                parts.append(f"{format_seconds(progress.eta)} left")
                self.update_bar(progress.step, progress.steps, " · ".join(parts))
            case TrainingWarning():
                self.console.print(f"{sanitize(event.run)}: warning: {progress.message}", style="yellow")
            case TrainingResult():
                self.update_bar(0, 1, "evaluating")
            case (done, total):
                self.update_bar(done, total, "evaluating")
            case _:
                pass

    def update_bar(self, done: int, total: int, note: str) -> None:
        """Update the progress bar; without effect unless the console is a terminal."""
        name = f"{sanitize(self.run)} ({self.number} of {len(self.runs)})"
        self.progress.update(self.bar, description=name, completed=done, total=total, note=note)
        if self.live is None:
            self.update_live()

    def update_live(self) -> None:
        """Draw the models ranked so far above the progress bar; without effect unless the console is a terminal."""
        if not self.console.is_terminal:
            return
        if self.live is None:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        if self.leaderboard is None:
            self.live.update(self.progress)
        else:
            self.live.update(Group(leaderboard_table(self.leaderboard, self.console.width), Text(), self.progress))

    def show_result(self, result: ModelResult, reused: bool) -> None:
        """Print a line for a finished run."""
        label = f"{result.model}, seed {result.seed}"
        name = sanitize(label if label in self.runs else result.model)
        if result.error:
            self.console.print(f"{name}: {sanitize(result.error)}", style="yellow")
            return
        bits = "no bits per byte" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f} bits per byte"
        measure = "" if result.measure == LIKELIHOOD else f" ({result.measure})"
        seconds = "" if result.cpu_seconds is None else f" after {result.cpu_seconds:,.1f} CPU seconds"
        self.console.print(f"{name}: {bits}{measure}{seconds}{', from an earlier run' if reused else ''}")

    def close(self) -> None:
        """Remove the table and the progress bar."""
        if self.live is not None:
            self.live.stop()


def print_leaderboard(leaderboard: Leaderboard, console: Console) -> None:
    """Print the leaderboard, notes on its models, paired comparisons, and where the report is."""
    console.print(leaderboard_table(leaderboard, console.width))
    console.print()
    for entry in leaderboard.entries:
        for note in entry.notes:
            console.print(f"{sanitize(entry.result.model)}: {sanitize(note)}", style="dim")
    for pair in leaderboard.pairs:
        console.print(sanitize(pair.sentence))
    if any(entry.result.measure != LIKELIHOOD for entry in leaderboard.entries):
        console.print(f"* {PSEUDO_LIKELIHOOD}: not comparable with the values of the other models")
    resampled = f"95 % bootstrap over {leaderboard.units:,} {leaderboard.unit}"
    intervals = resampled if leaderboard.units > 1 else "none, the text is too short"
    console.print(f"intervals: {intervals}; speeds: tokens per CPU second")
    console.print(f"report: {leaderboard.folder / 'report.html'}; one row per run: results.csv")


def leaderboard_table(leaderboard: Leaderboard, width: int) -> Table:
    """The leaderboard as a table; a narrow terminal gets fewer columns."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    wide = width >= WIDE
    table.add_column("model", no_wrap=True)
    if wide:
        table.add_column("family", no_wrap=True)
    several = any(len(entry.seeds) > 1 for entry in leaderboard.entries)
    heads = ["param.", "disk", "CPU s", *(["epochs", "train tok/s"] if wide else [] if several else ["train"])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("bits/byte", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    if several:
        table.add_column("seeds", no_wrap=True)
    table.add_column("gen. tok/s" if wide else "gen.", justify="right", no_wrap=True)
    for index, entry in enumerate(leaderboard.entries):
        table.add_row(*table_row(entry, wide, several, TERMINAL_COLORS[index % len(TERMINAL_COLORS)]))
    return table


def table_row(entry: LeaderboardEntry, wide: bool, several: bool, colour: str) -> list[Text]:
    """The cells of one model."""
    result = entry.result
    cells = [Text(sanitize(result.model), style=colour)]
    if wide:
        cells.append(Text(result.family))
    numbers = [result.parameters, result.bytes_on_disk, result.cpu_seconds, *([result.epochs] if wide else [])]
    numbers += [result.tokens_per_second] if wide or not several else []
    cells += [Text("–" if value is None else format_number(value)) for value in numbers]
    mark = " *" if result.measure != LIKELIHOOD else ""
    cells.append(Text("–" if entry.bits_per_byte is None else f"{entry.bits_per_byte:.4f}{mark}", style="bold"))
    interval = "–" if entry.interval is None else f"{entry.interval[0]:.3f} to {entry.interval[1]:.3f}"
    cells.append(Text(interval, style="dim"))
    if several:
        cells.append(Text(entry.seed_range if wide else entry.seed_range.partition(":")[0], style="dim"))
    speed = result.generation_tokens_per_second
    return [*cells, Text("–" if speed is None else format_number(speed))]
