"""Standings: a comparison in the terminal, a line for each model while it runs, and the ladder at the end."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from clearstory.cli.command import Talk
from clearstory.cli.training_display import clock, count
from clearstory.lens.rendering.scales import short
from clearstory.lens.rendering.terminal import COLOURS, safe
from clearstory.recipes.comparison.compare import Begun, Told, Tried, Trying
from clearstory.recipes.training.events import TrainingResult, Evaluated, RunPlanned, StepCompleted, TrainingWarning
from clearstory.recipes.comparison.leaderboard import LIKELIHOOD, PSEUDO, Ladder, Rung, Trial


def follow(told: Iterator[Told], talk: Talk) -> Ladder:
    """Draw a comparison to its end and return it. The terminal is given back however it ends."""
    standings = Standings(talk.aside)
    try:
        for item in told:
            standings.draw(item)
    finally:
        standings.close()
    assert standings.ladder is not None, "a comparison ends with its ladder or an error"
    return standings.ladder


class Standings:
    """What is known so far: finished models as lines, and a bar for the one that is at it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.bar = TaskID(0)
        self.model = ""
        self.looked: Evaluated | None = None
        self.ladder: Ladder | None = None
        self.place = 0
        self.models: tuple[str, ...] = ()

    def draw(self, item: Told) -> None:
        """One piece of news."""
        match item:
            case Begun():
                self.models = item.models
                self.console.print(
                    f"{count(len(item.models), 'model')}, {item.budget}; measured on {item.bytes:,} bytes, {item.text}"
                )
            case Trying():
                self.trying(item)
            case Tried():
                self.tried(item.trial, item.kept)
            case Ladder():
                self.ladder = item

    def trying(self, item: Trying) -> None:
        """How the model that is at it comes along."""
        if item.model != self.model or item.news is None:
            self.model, self.looked = item.model, None
            self.place += item.news is None
            if not self.console.is_terminal:
                self.console.print(f"{safe(item.model)} ({self.place} of {len(self.models)})")
        match item.news:
            case RunPlanned():
                self.move(0, item.news.steps, "begins")
            case Evaluated():
                self.looked = item.news
            case StepCompleted():
                news = [f"step {item.news.step:,}/{item.news.steps:,}"]
                if self.looked is not None and self.looked.bits_per_byte is not None:
                    news.append(f"≈ {self.looked.bits_per_byte:.3f} bits per byte")
                self.move(item.news.step, item.news.steps, " · ".join([*news, f"{clock(item.news.eta)} left"]))
            case TrainingWarning():
                self.console.print(f"{safe(item.model)}: warning: {item.news.message}", style="yellow")
            case TrainingResult():
                self.move(0, 1, "is measured")
            case (done, whole):
                self.move(done, whole, "is measured")
            case _:
                pass

    def move(self, done: int, whole: int, news: str) -> None:
        """The bar, where there is a terminal to draw it on."""
        if not self.console.is_terminal:
            return
        if self.progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[news]}"))
            self.progress = Progress(*columns, console=self.console, refresh_per_second=4, transient=True)
            self.bar = self.progress.add_task("", total=whole, news="")
            self.progress.start()
        name = f"{safe(self.model)} ({self.place} of {len(self.models)})"
        self.progress.update(self.bar, description=name, completed=done, total=whole, news=news)

    def tried(self, trial: Trial, kept: bool) -> None:
        """A line for a model that is done."""
        name = f"{safe(trial.model)}{'' if not trial.seed else f', seed {trial.seed}'}"
        if trial.failed:
            self.console.print(f"{name}: {safe(trial.failed)}", style="yellow")
            return
        bits = "no bits per byte" if trial.bits_per_byte is None else f"{trial.bits_per_byte:.4f} bits per byte"
        bits += "" if trial.measure == LIKELIHOOD else f" of {trial.measure}"
        took = "" if trial.cpu_seconds is None else f" after {trial.cpu_seconds:,.1f} s of the processor"
        self.console.print(f"{name}: {bits}{took}{', kept' * kept}")
        self.place += kept

    def close(self) -> None:
        """Give the terminal back."""
        if self.progress is not None:
            self.progress.stop()


def standing(ladder: Ladder, width: int) -> Table:
    """The ladder as a table; in a narrow terminal, without the columns that can be missed."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    wide = width >= 110
    table.add_column("model", no_wrap=True)
    if wide:
        table.add_column("family", no_wrap=True)
    for head in ("param.", "disk", "CPU s", *(("passes",) if wide else ()), "tok/s"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("bits/byte", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("writes tok/s" if wide else "writes", justify="right", no_wrap=True)
    for place, rung in enumerate(ladder.rungs):
        table.add_row(*row(rung, wide, COLOURS[place % len(COLOURS)]))
    return table


def row(rung: Rung, wide: bool, colour: str) -> list[Text]:
    """A model's cells."""
    trial = rung.trial
    cells = [Text(safe(trial.model), style=colour)]
    if wide:
        cells.append(Text(trial.family))
    numbers = [trial.parameters, trial.bytes_on_disk, trial.cpu_seconds, *([trial.passes] if wide else []),
               trial.tokens_per_second]  # fmt: skip
    cells += [Text("–" if value is None else short(value)) for value in numbers]
    pseudo = " *" if trial.measure != LIKELIHOOD else ""
    cells.append(Text("–" if rung.bits_per_byte is None else f"{rung.bits_per_byte:.4f}{pseudo}", style="bold"))
    cells.append(
        Text("–" if rung.interval is None else f"{rung.interval[0]:.3f} to {rung.interval[1]:.3f}", style="dim")
    )
    speed = trial.generation_tokens_per_second
    return [*cells, Text("–" if speed is None else short(speed))]


def summary(ladder: Ladder, console: Console) -> None:
    """The ladder, what overlaps, and where everything is."""
    console.print(standing(ladder, console.width))
    console.print()
    for rung in ladder.rungs:
        if note := rung.trial.failed or rung.trial.note:
            console.print(f"{safe(rung.trial.model)}: {safe(note)}", style="dim")
    for pair in ladder.pairs:
        console.print(safe(pair.sentence))
    if any(rung.trial.measure != LIKELIHOOD for rung in ladder.rungs):
        console.print(f"* by {PSEUDO}, another yardstick than that of the others")
    console.print(f"intervals: 95 % of a bootstrap over {ladder.units:,} {ladder.unit}; speeds per processor second")
    console.print(f"report: {ladder.folder / 'report.html'}")
