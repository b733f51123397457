"""Record: what a run tells of itself, a JSON object a line, and what can be read off it in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from clearstory import durable


class MetricsLog:
    """metrics.jsonl of a run: appended to, and cut back to the checkpoint when a run resumes.

    >>> import tempfile
    >>> record = Record(Path(tempfile.mkdtemp()) / "metrics.jsonl")
    >>> record.write(kind="step", step=1, loss=4.2)
    >>> record.close()
    >>> list(read_metrics(record.path))
    [{'kind': 'step', 'step': 1, 'loss': 4.2}]
    """

    def __init__(self, path: Path, *, since: int | None = None) -> None:
        """Open a record. `since`: keep only what was written up to this step; None begins anew."""
        self.path = path
        kept = [] if since is None else [row for row in read_metrics(path) if row.get("step", 0) <= since]
        # A run that goes on, or ends again, has not ended there.
        lines = [json.dumps(row) for row in kept if row.get("kind") != "end"]
        durable.write_text(path, "".join(f"{line}\n" for line in lines))
        self.file: BinaryIO = path.open("ab", buffering=0)

    def write(self, **row: Any) -> None:
        """One more line, out of our hands when this returns: a killed process loses no finished line.

        Raises OutOfSpace where the disk is full.
        """
        with durable.disk_full_error(self.path):
            durable.call_hooks("append", self.path)
            line = memoryview(json.dumps(row).encode() + b"\n")
            while line:  # a disk that fills takes a part, and says so only of the rest
                line = line[self.file.write(line) :]

    def close(self) -> None:
        """No more lines."""
        self.file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a record, but for a last one that a kill cut short."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the process was killed
            if isinstance(row, dict):
                yield row


class LossMonitor:
    """Says in words what a curve shows: a loss that runs away, a model that learns its text by heart.

    Thresholds are chosen so that the reference runs of every preset raise neither.
    """

    def __init__(self) -> None:
        self.smooth: float | None = None
        self.lowest: float | None = None
        self.lowest_step = 0
        self.diverging = False
        self.looks: list[tuple[int, float, float]] = []
        self.overfitting = False

    def step(self, step: int, loss: float) -> str | None:
        """A sentence when the smoothed loss has climbed a fifth and 0.3 nats above its lowest; once a run."""
        self.smooth = loss if self.smooth is None else 0.95 * self.smooth + 0.05 * loss
        if self.lowest is None or self.smooth < self.lowest:
            self.lowest, self.lowest_step = self.smooth, step
        if self.diverging or step < 50 or self.smooth < max(1.2 * self.lowest, self.lowest + 0.3):
            return None
        self.diverging = True
        return (
            f"diverging: the loss is {self.smooth:.2f} nats and was {self.lowest:.2f} at step {self.lowest_step:,}; "
            "a lower --training.learning_rate or a longer --training.warmup_steps usually helps"
        )

    def look(self, step: int, validation: float) -> str | None:
        """A sentence when validation has risen for three looks while training fell; once a run."""
        self.looks.append((step, validation, self.smooth if self.smooth is not None else validation))
        if self.overfitting or len(self.looks) < 4:
            return None
        last = self.looks[-4:]
        rising = all(later[1] > earlier[1] for earlier, later in pairwise(last))
        if not (rising and last[-1][2] < last[0][2]):
            return None
        self.overfitting = True
        return (
            f"overfitting since step {last[0][0]:,}: validation rose from {last[0][1]:.3f} to {last[-1][1]:.3f} nats "
            f"while training fell to {last[-1][2]:.3f}; the best model is kept; more text, --model.dropout or "
            "--training.patience 3 would help"
        )
