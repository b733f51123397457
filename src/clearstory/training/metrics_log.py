"""MetricsLog: metrics.jsonl of a run, one JSON object per line. LossMonitor: warnings about a loss curve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from clearstory import durable


class MetricsLog:
    """metrics.jsonl of a run: records are appended, and those after the checkpoint are dropped when a run resumes.

    >>> import tempfile
    >>> log = MetricsLog(Path(tempfile.mkdtemp()) / "metrics.jsonl")
    >>> log.write(kind="step", step=1, loss=4.2)
    >>> log.close()
    >>> list(read_metrics(log.path))
    [{'kind': 'step', 'step': 1, 'loss': 4.2}]
    """

    def __init__(self, path: Path, *, since: int | None = None, written: Mapping[str, Any] | None = None) -> None:
        """Open the log at `path`; keep only records up to step `since`, or none.

        `written` is the `position` of the log when the checkpoint of that step was saved: those bytes are kept as they
        are, if they have not changed since.
        """
        self.path = path
        kept = b"" if since is None else unchanged_part(path, written)
        self.changed = kept is None and written is not None
        """Whether records before the checkpoint have changed; those that can be read are kept."""
        if kept is None:
            # A run that resumes has not ended there.
            records = (each for each in read_metrics(path) if each["step"] <= (since or 0) and each["kind"] != "end")
            kept = "".join(f"{json.dumps(record)}\n" for record in records).encode()
        durable.write_bytes(path, kept)
        self.digest, self.size = durable.Digest(), len(kept)
        self.digest.update(kept)
        self.file: BinaryIO = path.open("ab", buffering=0)

    def write(self, **record: Any) -> None:
        """Append one record; it is handed to the system when this returns, so a killed process loses no finished line.

        Raises DiskError, OutOfSpace where the disk is full.
        """
        data = json.dumps(record).encode() + b"\n"
        with durable.appending(self.path):
            line = memoryview(data)
            while line:  # a disk that fills up takes a part, and raises only for the rest
                line = line[self.file.write(line) :]
        self.digest.update(data)
        self.size += len(data)

    @property
    def position(self) -> dict[str, Any]:
        """Size and digest of all records so far, which a checkpoint holds."""
        return {"bytes": self.size, "digest": self.digest.hex}

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def unchanged_part(path: Path, written: Mapping[str, Any] | None) -> bytes | None:
    """The first bytes of a log if they match the recorded digest, otherwise None."""
    if written is None or not path.is_file():
        return None
    size, digest = written.get("bytes"), durable.Digest()
    if not isinstance(size, int) or size < 0:
        return None
    data = durable.read_file(path)[:size]
    digest.update(data)
    return data if len(data) == size and digest.hex == written.get("digest") else None


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, without invalid lines, such as an incomplete last line."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("step"), int):
                yield record


class LossMonitor:
    """Detects a diverging training loss, and overfitting; each is reported in one sentence, once a run.

    Thresholds are chosen so that the reference runs of every preset raise neither.
    """

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.lowest: float | None = None
        self.lowest_step = 0
        self.diverging = False
        self.evaluations: list[tuple[int, float, float]] = []
        self.overfitting = False

    def check_loss(self, step: int, loss: float) -> str | None:
        """A warning when the smoothed training loss is 20 % and 0.3 nats above its lowest value."""
        self.smoothed = loss if self.smoothed is None else 0.95 * self.smoothed + 0.05 * loss
        if self.lowest is None or self.smoothed < self.lowest:
            self.lowest, self.lowest_step = self.smoothed, step
        if self.diverging or step < 50 or self.smoothed < max(1.2 * self.lowest, self.lowest + 0.3):
            return None
        self.diverging = True
        return (
            f"diverging: the loss is {self.smoothed:.2f} nats and was {self.lowest:.2f} at step {self.lowest_step:,}; "
            "a lower --training.learning_rate or a longer --training.warmup_steps usually helps"
        )

    def check_validation(self, step: int, loss: float, *, has_dropout: bool = True) -> str | None:
        """A warning when the validation loss has risen in three evaluations while the training loss fell.

        `has_dropout`: whether dropout is among the settings of the model.
        """
        self.evaluations.append((step, loss, self.smoothed if self.smoothed is not None else loss))
        if self.overfitting or len(self.evaluations) < 4:
            return None
        last = self.evaluations[-4:]
        rising = all(later[1] > earlier[1] for earlier, later in pairwise(last))
        if not (rising and last[-1][2] < last[0][2]):
            return None
        self.overfitting = True
        remedies = "more text, --model.dropout or" if has_dropout else "more text or"
        return (
            f"overfitting since step {last[0][0]:,}: validation rose from {last[0][1]:.3f} to {last[-1][1]:.3f} nats "
            f"while training fell to {last[-1][2]:.3f}; the best model is kept; {remedies} --training.patience 3 can "
            "help"
        )
