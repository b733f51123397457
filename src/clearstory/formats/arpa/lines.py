"""Lines of an ARPA file: read in blocks, divided into columns, and what is wrong with one told by its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from clearstory.errors import CorruptFile

BLOCK = 50_000
"""Lines read, or written, at a time."""

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass
class Lines:
    """A file while it is read, and the place in it."""

    path: Path
    file: Any
    line: int = 0  # lines read

    def wrong(self, line: int, reason: str) -> NoReturn:
        """The one sentence."""
        raise CorruptFile(f"{self.path}, line {line:,}: {reason}")

    def next(self) -> bytes:
        """The next line that is not empty; nothing at the end."""
        for line in self.file:
            self.line += 1
            if stripped := line.strip():
                return bytes(stripped)
        return b""

    def finish(self) -> None:
        """Read what stands behind the last line: a packed file has its checksum there."""
        while self.file.read(1 << 20):
            pass

    def blocks(self, order: int, size: int) -> Iterator[tuple[list[list[bytes]], Floats, Floats, int]]:
        """A section in blocks of lines: words by place, log10 P, log10 of the weights, the first line's number."""
        left = size
        while left:
            lines = list(islice(self.file, min(BLOCK, left)))
            first = self.line + 1
            self.line += len(lines)
            flat, lengths = fields(lines)
            odd = np.flatnonzero((lengths != order + 1) & (lengths != order + 2))
            if odd.size or not lines:
                self.odd(order, size, size - left, lines, int(odd[0]) if odd.size else 0, first)
            begins = np.cumsum(lengths) - lengths
            given = np.flatnonzero(lengths == order + 2)
            if given.size in (0, len(lines)):
                columns = [flat[place :: int(lengths[0])] for place in range(order + 1)]
            else:
                columns = [[flat[at] for at in (begins + place).tolist()] for place in range(order + 1)]
            probabilities = self.numbers(columns[0], first)
            if (above := np.flatnonzero(probabilities > 0)).size:
                at = int(above[0])
                self.wrong(first + at, f"a probability's logarithm is {shown(columns[0][at])}, and none is above 0")
            contexts = np.zeros(len(lines))
            if given.size:
                last = [flat[at] for at in (begins[given] + order + 1).tolist()]
                contexts[given] = self.numbers(last, first, given)
            yield columns[1:], probabilities, contexts, first
            left -= len(lines)

    def odd(self, order: int, size: int, done: int, lines: list[bytes], at: int, first: int) -> NoReturn:
        """What is wrong with a line that is no n-gram."""
        line = lines[at].split() if lines else []
        if not line or line[0].startswith(b"\\"):
            self.wrong(
                first + at, f"the {order}-grams end after {done + at:,}, and \\data\\ says that they are {size:,}"
            )
        words = b" ".join(line)
        self.wrong(first + at, f"a {order}-gram is a number, {order} words, and perhaps a number: {shown(words)}")

    def numbers(self, words: Sequence[bytes], first: int, places: Rows | None = None) -> Floats:
        """What should be numbers."""
        try:
            found = np.array(list(map(float, words)), dtype=np.float64)
        except ValueError:
            found = np.array([float(word) if number(word) else np.nan for word in words])
        if (bad := np.flatnonzero(~np.isfinite(found))).size:
            at = int(bad[0])
            self.wrong(first + (at if places is None else int(places[at])), f"{shown(words[at])} is no finite number")
        return found


SPACE = np.array([bytes([byte]).isspace() for byte in range(256)])


def fields(lines: Sequence[bytes]) -> tuple[list[bytes], Rows]:
    """What white space divides, of all lines one behind the other, and how many stand in each.

    One list for all: a list for each line would take ten times as long.
    """
    if not lines:
        return [], np.empty(0, np.int64)
    joined = b"".join(lines)
    metaspace_normalizer = SPACE[np.frombuffer(joined, np.uint8)]
    begins = ~metaspace_normalizer
    begins[1:] &= metaspace_normalizer[:-1]
    ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)))
    found = np.concatenate([[0], np.cumsum(begins)])[np.concatenate([[0], ends])]
    return joined.split(), np.diff(found)


def number(word: bytes) -> bool:
    """Whether it reads as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def shown(line: bytes) -> str:
    """A line as it may stand in a sentence."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...") if text else ""
