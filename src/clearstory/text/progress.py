"""Progress of long readings of a text: reading it, training a tokenizer on it, encoding it.

with listening(print):
    Corpus.open("large.txt").encode(tokenizer)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from clearstory.text.document import Document

Listener = Callable[[str, int | None, int], None]
"""Called with the stage, the number of bytes done (None at the end), and the total number of bytes or 0."""

REPORT_BYTES = 1 << 20
"""Number of bytes between two reports."""

_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """A block in which `listener` is called with the progress of all readings."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_stage(stage: str) -> Iterator[None]:
    """A block that is one stage of the work; the listener learns when it ends."""
    try:
        yield
    finally:
        report(stage, None, 0)


def report(stage: str, done: int | None, total: int) -> None:
    """Call the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        listener(stage, done, total)


class DocumentCounter:
    """Reports the bytes of iterated documents; `total` is their number, or 0 if unknown."""

    def __init__(self, stage: str, total: int = 0) -> None:
        self.stage = stage
        self.total = total
        self.done = 0
        self._due = REPORT_BYTES

    def watch(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents."""
        for document in documents:
            yield document
            self.done += len(document.text)  # about the bytes, and free
            if self.done >= self._due:
                report(self.stage, min(self.done, self.total) if self.total else self.done, self.total)
                self._due = self.done + REPORT_BYTES
