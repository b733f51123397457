"""Lines of an ARPA file: read in blocks and split into columns; errors name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from clearstory.errors import CorruptFile

BLOCK_LINES = 50_000
"""Lines read, or written, at a time."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass
class LineReader:
    """Reads an open file line by line; `line` is the number of lines read."""

    path: Path
    file: Any
    line: int = 0

    def fail(self, line: int, reason: str) -> NoReturn:
        """Raise CorruptFile for a line."""
        raise CorruptFile(f"{self.path}, line {line:,}: {reason}")

    def next_line(self) -> bytes:
        """The next non-empty line, stripped; empty at the end of the file."""
        for line in self.file:
            self.line += 1
            if stripped := line.strip():
                return bytes(stripped)
        return b""

    def read_ngrams(self, order: int, size: int) -> Iterator[tuple[list[list[bytes]], Floats, Floats, int]]:
        """The n-grams of one section in blocks.

        Yields the words of the block by position, `order` lists of N; log10 probabilities (N,); log10 backoff weights
        (N,), 0 if a line has none; and the number of the block's first line.
        """
        remaining = size
        while remaining:
            lines = list(islice(self.file, min(BLOCK_LINES, remaining)))
            first = self.line + 1
            self.line += len(lines)
            fields, lengths = split_fields(lines)
            invalid = np.flatnonzero((lengths != order + 1) & (lengths != order + 2))
            if invalid.size or not lines:
                self.fail_ngram(order, size, size - remaining, lines, int(invalid[0]) if invalid.size else 0, first)
            starts = np.cumsum(lengths) - lengths
            with_backoff = np.flatnonzero(lengths == order + 2)
            if with_backoff.size in (0, len(lines)):
                columns = [fields[index :: int(lengths[0])] for index in range(order + 1)]
            else:
                columns = [[fields[at] for at in (starts + index).tolist()] for index in range(order + 1)]
            log_probs = self.parse_numbers(columns[0], first, minus_infinity=True)
            if (positive := np.flatnonzero(log_probs > 0)).size:
                at = int(positive[0])
                self.fail(first + at, f"a log probability is {shorten(columns[0][at])}; it must not be above 0")
            backoffs = np.zeros(len(lines))
            if with_backoff.size:
                last = [fields[at] for at in (starts[with_backoff] + order + 1).tolist()]
                backoffs[with_backoff] = self.parse_numbers(last, first, with_backoff)
            yield columns[1:], log_probs, backoffs, first
            remaining -= len(lines)

    def fail_ngram(self, order: int, size: int, n_read: int, lines: list[bytes], index: int, first: int) -> NoReturn:
        """Raise CorruptFile for a line that is not an n-gram."""
        fields = split_fields(lines[index : index + 1])[0]
        if not fields or fields[0].startswith(b"\\"):
            self.fail(first + index, f"the {order}-grams end after {n_read + index:,}, but \\data\\ announces {size:,}")
        text = b" ".join(fields)
        self.fail(
            first + index,
            f"a {order}-gram must be a number, {order} words and optionally a number: {shorten(text)}",
        )

    def parse_numbers(
        self, fields: Sequence[bytes], first: int, indices: Integers | None = None, minus_infinity: bool = False
    ) -> Floats:
        """Finite numbers, (N,). `indices` are the fields' lines relative to `first`, consecutive if None.

        `minus_infinity`: accept -inf too, the logarithm of 0.
        """
        try:
            values = np.array(list(map(float, fields)), dtype=np.float64)
        except ValueError:
            values = np.array([float(field) if is_number(field) else np.nan for field in fields])
        valid = np.isfinite(values) | (np.isneginf(values) if minus_infinity else False)
        if (bad := np.flatnonzero(~valid)).size:
            at = int(bad[0])
            line = first + (at if indices is None else int(indices[at]))
            self.fail(line, f"{shorten(fields[at])} is not a finite number")
        return values


WHITESPACE = np.array([byte in b" \t\r\n" for byte in range(256)])
"""What separates fields: KenLM's choice, which leaves vertical tabs and form feeds to words."""


def split_fields(lines: Sequence[bytes]) -> tuple[list[bytes], Integers]:
    """The fields of all lines in one list, and the number of fields in each line.

    One list instead of a list for each line, which would take ten times as long.
    """
    if not lines:
        return [], np.empty(0, np.int64)
    text = b"".join(lines)
    is_space = WHITESPACE[np.frombuffer(text, np.uint8)]
    is_start = ~is_space
    is_start[1:] &= is_space[:-1]
    line_ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)))
    n_fields = np.concatenate([[0], np.cumsum(is_start)])[np.concatenate([[0], line_ends])]
    if b"\x0b" in text or b"\x0c" in text:
        return [field for field in re.split(rb"[ \t\r\n]+", text) if field], np.diff(n_fields)
    return text.split(), np.diff(n_fields)


def is_number(field: bytes) -> bool:
    """Whether a field parses as a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def shorten(line: bytes) -> str:
    """A line for an error message: quoted, at most 60 characters; empty for an empty line."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...") if text else ""
