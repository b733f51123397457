"""Training display: prints the events of a training run to the terminal as they arrive.

On a terminal, a progress bar with an estimate of the remaining time; elsewhere, one line for each evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import assert_never

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clearstory.cli.command import Output
from clearstory.recipes.training.events import (
    CurvePointScored,
    Evaluated,
    GenerationProgress,
    ModelSaved,
    RunPlanned,
    RunPrepared,
    StepCompleted,
    TextSampled,
    TrainingEvent,
    TrainingNote,
    TrainingResult,
    TrainingWarning,
)


def show_training(events: Iterator[TrainingEvent], output: Output) -> TrainingResult:
    """Print the events of a run until it ends and return its result. The progress bar is removed in any case."""
    display = TrainingDisplay(output.stderr)
    try:
        for event in events:
            display.show(event)
    finally:
        display.close()
    assert display.result is not None, "a run ends with TrainingResult or an error"
    return display.result


class TrainingDisplay:
    """Prints events, one method for each kind, and keeps the latest step and evaluation for the progress bar."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.bar = TaskID(0)
        self.step: StepCompleted | None = None
        self.evaluation: Evaluated | None = None
        self.result: TrainingResult | None = None

    def show(self, event: TrainingEvent) -> None:
        """Print one event."""
        match event:
            case RunPrepared():
                self.show_prepared(event)
            case RunPlanned():
                self.console.print(event.message)
                self.set_total_steps(event.steps)
            case StepCompleted():
                self.show_step(event)
            case Evaluated():
                self.show_evaluation(event)
            case TextSampled():
                self.console.print(f"\nsample after step {event.step:,}:\n{indent(event.text)}\n", style="italic")
            case ModelSaved():
                pass  # the summary at the end says where the model is
            case CurvePointScored():
                scores = " · ".join(f"{name} {value:.3f}" for name, value in event.scores.items())
                labels = format_count(event.labels, "label")
                self.console.print(f"{labels}, draw {event.seed}: {event.metric.replace('_', ' ')} {scores}")
            case GenerationProgress():
                self.show_generation(event)
            case TrainingNote():
                self.console.print(event.message, style="yellow")
            case TrainingWarning():
                self.console.print(f"warning: {event.message}", style="yellow")
            case TrainingResult():
                self.result = event
            case _:
                assert_never(event)

    def show_prepared(self, event: RunPrepared) -> None:
        """Print a line about the corpus and one about the model."""
        if event.note:
            self.console.print(event.note, style="yellow")
        self.console.print(
            f"{event.corpus}: {format_count(event.documents, event.unit)}, {event.bytes:,} bytes; "
            f"{event.tokens:,} training tokens, {event.validation_tokens:,} validation tokens "
            f"({event.tokenizer}, vocabulary of {event.vocab:,})"
        )
        self.console.print(f"{event.parameters:,} parameters: {event.model_summary}")

    def set_total_steps(self, steps: int) -> None:
        """Show the progress bar on a terminal, or change its end to a newly planned number of steps."""
        if not self.console.is_terminal:
            return
        if self.progress is None:
            columns = (BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"), TextColumn("{task.fields[note]}"))
            self.progress = Progress(*columns, console=self.console, refresh_per_second=4, transient=True)
            self.bar = self.progress.add_task("", total=steps, note="")
            self.progress.start()
        self.progress.update(self.bar, total=steps)

    def show_step(self, event: StepCompleted) -> None:
        """Advance the progress bar."""
        self.step = event
        if self.progress is not None:
            parts = [] if event.loss is None else [format_loss(event)]
            if self.evaluation is not None:
                parts.append(format_validation(self.evaluation))
            parts += [f"{event.tokens_per_second:,.0f} tokens/s", f"{format_seconds(event.eta)} left"]
            self.progress.update(self.bar, completed=event.step, total=event.steps, note=" · ".join(parts))

    def show_evaluation(self, event: Evaluated) -> None:
        """Print a line for an evaluation; the progress bar shows only the latest."""
        self.evaluation = event
        parts = [f"step {event.step:,}{f'/{self.step.steps:,}' if self.step else ''}", format_validation(event)]
        if self.step is not None:
            parts += [] if self.step.loss is None else [format_loss(self.step)]
            parts.append(f"{self.step.tokens_per_second:,.0f} tokens/s")
            parts.append(f"{format_seconds(self.step.eta)} left")
        self.console.print(" · ".join(parts) + (" · best so far" if event.is_best else ""))

    def show_generation(self, event: GenerationProgress) -> None:
        """Advance the progress bar; elsewhere than on a terminal, a line for each tenth."""
        if self.console.is_terminal:
            self.set_total_steps(event.total)
        if self.progress is not None:
            note = f"texts generated · {event.what}"
            self.progress.update(self.bar, completed=event.done, total=event.total, note=note)
        elif event.total > 100 and event.done * 10 // event.total > (event.done - 1) * 10 // event.total:
            self.console.print(f"{event.what}: {event.done:,} of {event.total:,} texts generated")

    def close(self) -> None:
        """Remove the progress bar."""
        if self.progress is not None:
            self.progress.stop()


@contextmanager
def progress_bar(output: Output, label: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that updates a progress bar; without effect unless standard error is a terminal."""
    console = output.stderr
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(label), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=4, transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def training_summary(result: TrainingResult) -> str:
    """The outcome of a run: its validation score, size and time, where the model is, and a command to try next."""
    steps = f", {format_count(result.steps, 'step')}, {result.tokens:,} tokens" if result.steps else ""
    lines = [
        result.summary,
        f"{result.parameters:,} parameters{steps} "
        f"in {format_seconds(result.seconds)} ({format_seconds(result.cpu_seconds)} of CPU time)",
        *([] if result.folder == result.run_folder else [f"model: {result.folder}"]),
        *([] if result.curve is None else [f"curve: {result.curve}"]),
        f"next:  {result.next_command}",
    ]
    return "\n".join(lines)


def format_loss(event: StepCompleted) -> str:
    """The loss of a step, with its terms where it is a sum."""
    terms = ", ".join(f"{name} {value:.3f}" for name, value in event.terms.items())
    return f"loss {event.loss:.3f}{f' ({terms})' if terms else ''}"


def format_validation(event: Evaluated) -> str:
    """The validation score; marked ≈ if only a part of the validation text was evaluated."""
    approximate = "" if event.complete else "≈ "
    if event.bits_per_byte is None:
        score = f"validation {approximate}{event.nats_per_token:.3f} nats per {event.loss_unit}"
        return " · ".join([score, *(f"{name.replace('_', ' ')} {value:.3f}" for name, value in event.metrics.items())])
    return f"validation {approximate}{event.bits_per_byte:.3f} bits per byte"


def format_seconds(seconds: float) -> str:
    """A duration as minutes and seconds, or hours, minutes and seconds: 0:07, 12:30, 3:05:00.

    >>> format_seconds(750)
    '12:30'
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_count(number: int, word: str) -> str:
    """A number with its noun: 1 step, 2 steps."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def indent(text: str) -> str:
    """A text with each line indented by two spaces."""
    return "\n".join(f"  {line}" for line in text.splitlines())
