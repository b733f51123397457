"""Display: the events of a training run, drawn in the terminal as they come.

On a terminal, a bar with what is left to do; elsewhere, a plain line for each look at the validation text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import assert_never

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clearstory.cli.command import Talk
from clearstory.recipes.training.events import (
    TrainingEvent,
    TrainingResult,
    Evaluated,
    RunPlanned,
    RunPrepared,
    TextSampled,
    ModelSaved,
    StepCompleted,
    TrainingWarning,
)


def show(events: Iterator[TrainingEvent], talk: Talk) -> TrainingResult:
    """Draw a run to its end and return how it ended. The terminal is given back however it ends."""
    display = Display(talk.aside)
    try:
        for event in events:
            display.draw(event)
    finally:
        display.close()
    assert display.finished is not None, "a run ends with TrainingResult or an error"
    return display.finished


class Display:
    """What is known of a run so far, and how it is drawn."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.bar = TaskID(0)
        self.step: StepCompleted | None = None
        self.looked: Evaluated | None = None
        self.finished: TrainingResult | None = None

    def draw(self, event: TrainingEvent) -> None:
        """One piece of news."""
        match event:
            case RunPrepared():
                self.prepared(event)
            case RunPlanned():
                self.console.print(event.sentence)
                self.open(event.steps)
            case StepCompleted():
                self.stepped(event)
            case Evaluated():
                self.look(event)
            case TextSampled():
                self.console.print(f"\nafter step {event.step:,} it writes:\n{indent(event.text)}\n", style="italic")
            case ModelSaved():
                pass  # the bar goes on; where things lie is said at the end
            case TrainingWarning():
                self.console.print(f"warning: {event.sentence}", style="yellow")
            case TrainingResult():
                self.finished = event
            case _:
                assert_never(event)

    def prepared(self, event: RunPrepared) -> None:
        """The text and the model, in two lines."""
        if event.note:
            self.console.print(event.note, style="yellow")
        self.console.print(
            f"{event.corpus}: {count(event.documents, event.unit)}, {event.bytes:,} bytes; "
            f"{event.tokens:,} tokens to learn from and {event.validation_tokens:,} held back "
            f"({event.tokenizer}, {event.vocab:,} different)"
        )
        self.console.print(f"{event.parameters:,} parameters: {event.shape}")

    def open(self, steps: int) -> None:
        """The bar, where there is a terminal to draw it on; a new plan moves its end."""
        if not self.console.is_terminal:
            return
        if self.progress is None:
            columns = (BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"), TextColumn("{task.fields[news]}"))
            self.progress = Progress(*columns, console=self.console, refresh_per_second=4, transient=True)
            self.bar = self.progress.add_task("", total=steps, news="")
            self.progress.start()
        self.progress.update(self.bar, total=steps)

    def stepped(self, event: StepCompleted) -> None:
        """Move the bar."""
        self.step = event
        if self.progress is not None:
            self.progress.update(self.bar, completed=event.step, total=event.steps, news=self.news(event))

    def news(self, event: StepCompleted) -> str:
        """What stands beside the bar."""
        parts = [] if event.loss is None else [loss(event)]
        if self.looked is not None:
            parts.append(quality(self.looked))
        parts += [f"{event.tokens_per_second:,.0f} tokens/s", f"{clock(event.eta)} left"]
        return " · ".join(parts)

    def look(self, event: Evaluated) -> None:
        """A line for each look: the bar shows only the last."""
        self.looked = event
        parts = [f"step {event.step:,}{f'/{self.step.steps:,}' if self.step else ''}", quality(event)]
        if self.step is not None:
            parts += [] if self.step.loss is None else [loss(self.step)]
            parts.append(f"{self.step.tokens_per_second:,.0f} tokens/s")
            parts.append(f"{clock(self.step.eta)} left")
        self.console.print(" · ".join(parts) + (" · best so far" if event.best else ""))

    def close(self) -> None:
        """Give the terminal back."""
        if self.progress is not None:
            self.progress.stop()


@contextmanager
def counting(talk: Talk, words: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told how much is done of how much, drawn as a bar on a terminal and nowhere else."""
    console = talk.aside
    if not console.is_terminal:
        yield lambda done, whole: None
        return
    columns = (TextColumn(words), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=4, transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, whole: progress.update(bar, completed=done, total=whole)


def summary(event: TrainingResult) -> str:
    """The end of a run, for a reader."""
    lines = []
    masks = event.objective.startswith("masked")
    writes = event.objective in ("rewrite", "denoise")
    if writes:
        lines.append(f"{event.nats_per_token:.4f} nats per target token of what was held out")
    elif masks:
        lines.append(f"{event.nats_per_token:.4f} nats per masked token of the held-out text")
        if event.next_sentence_accuracy is not None:
            lines[0] += f"; of its pairs of sentences {event.next_sentence_accuracy:.1%} told rightly"
    elif event.bits_per_byte is not None:
        lines.append(f"{event.bits_per_byte:.4f} bits per byte on the held-out text")
    else:
        lines.append("no bits per byte: the tokenizer loses some of the text")
    lines[0] += "" if masks or writes else f" ({event.nats_per_token:.4f} nats per token)"
    lines.append(
        f"{event.parameters:,} parameters, {count(event.steps, 'step')}, {event.tokens:,} tokens "
        f"in {clock(event.seconds)} ({clock(event.cpu_seconds)} of processor time)"
    )
    lines.append(f"model: {event.folder}")
    if event.curve is not None:
        lines.append(f"curve: {event.curve}")
    lines.append(
        f'next:  clearstory fill {event.run} "... [MASK] ..."' if masks else f"next:  clearstory generate {event.run}"
    )
    if writes:
        verb = "translate" if event.objective == "rewrite" else "generate"
        lines[-1] = f'next:  clearstory {verb} {event.run} "..."'
    return "\n".join(lines)


def loss(event: StepCompleted) -> str:
    """What a step cost, and of what that is the sum."""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in event.terms.items())
    return f"loss {event.loss:.3f}{f' ({parts})' if parts else ''}"


def quality(event: Evaluated) -> str:
    """How well the validation text is predicted."""
    share = "" if event.complete else "≈ "
    if event.bits_per_byte is None:
        told = f"validation {share}{event.nats_per_token:.3f} nats per {event.token}"
        accuracy = event.next_sentence_accuracy
        return told if accuracy is None else f"{told} · next sentence {accuracy:.1%}"
    return f"validation {share}{event.bits_per_byte:.3f} bits per byte"


def clock(seconds: float) -> str:
    """Time as people read it: 0:07, 12:30, 3:05:00.

    >>> clock(750)
    '12:30'
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, word: str) -> str:
    """A number and its word: 1 step, 2 steps."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def indent(text: str) -> str:
    """A passage set off from the lines around it."""
    return "\n".join(f"  {line}" for line in text.splitlines())
