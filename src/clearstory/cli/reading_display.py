"""Reading display: the progress of reading, tokenizing and encoding a large text.

On a terminal a progress bar, elsewhere a line every ten seconds; nothing for what takes less than a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from clearstory.cli.command import Output
from clearstory.text.progress import listening

TERMINAL_SECONDS, LINE_SECONDS = 1.0, 10.0
"""Seconds of a stage before the bar is shown, and between two lines."""


@contextmanager
def reading_progress(output: Output) -> Iterator[None]:
    """A block in which long readings of text show their progress on standard error."""
    display = ReadingDisplay(output)
    try:
        with listening(display.show):
            yield
    finally:
        display.stop()


class ReadingDisplay:
    """Shows the progress of one stage at a time."""

    def __init__(self, output: Output) -> None:
        self.console = output.stderr
        self.progress: Progress | None = None
        self.bar = TaskID(0)
        self.shown = time.monotonic()

    def show(self, stage: str, done: int | None, total: int) -> None:
        """Show the progress of a stage; `done` is None at its end."""
        if done is None:
            self.stop()
        elif not self.console.is_terminal:
            if time.monotonic() - self.shown >= LINE_SECONDS:
                self.console.print(describe(stage, done, total), style="dim")
                self.shown = time.monotonic()
        elif self.progress is not None:
            self.progress.update(
                self.bar, completed=done, total=total or None, description=describe(stage, done, total)
            )
        elif time.monotonic() - self.shown >= TERMINAL_SECONDS:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self.progress = Progress(*columns, console=self.console, refresh_per_second=4, transient=True)
            self.bar = self.progress.add_task(describe(stage, done, total), total=total or None)
            self.progress.start()

    def stop(self) -> None:
        """Remove the bar."""
        self.shown = time.monotonic()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def describe(stage: str, done: int, total: int) -> str:
    """Description of a stage.

    >>> describe("encoding the text", 3_000_000, 200_000_000)
    'encoding the text: 3 of 200 MB'
    """
    if total:
        return f"{stage}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
    return f"{stage}: {done / 1e6:,.0f} MB" if done else stage
