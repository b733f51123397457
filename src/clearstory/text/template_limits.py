"""Budget: how much one rendering of a stranger's template may write, make, repeat and take, and how it is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from string import Formatter
from typing import Any

from clearstory.errors import BadInput

MAX_TEXT = 2**24
"""Characters that a template may write, and of anything it makes."""

MAX_TOTAL = 2**27
"""Characters of all that it makes on the way, together; an item of a list counts as one."""

MAX_ITERATIONS = 100_000
"""Turns of all loops together, and numbers of all ranges."""

MAX_SECONDS = 10.0
"""Of a processor. A template that is meant well takes milliseconds."""

MAX_BITS = 4096
"""Of a whole number."""


class RenderBudget:
    """What is left to one rendering."""

    def __init__(self) -> None:
        self.written = self.made = self.turns = self.counted = 0
        self.end = time.thread_time() + MAX_SECONDS
        self.next = 0.0

    def tick(self) -> None:
        """Look at the clock; a tenth of a second apart, since that of the processor takes its time on some machines."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 0.1
        if time.thread_time() > self.end:
            raise BadInput(f"the chat template takes more than {MAX_SECONDS:g} seconds; use another")

    def write(self, size: int) -> None:
        """So many characters are to be written."""
        self.tick()
        self.written += size
        if self.written > MAX_TEXT:
            raise BadInput(f"the chat template writes more than {MAX_TEXT:,} characters; use another")

    def turn(self, size: int) -> None:
        """A loop begins a turn, in which `size` characters of the template's own are written."""
        self.turns += 1
        self.count(0)
        self.write(size)

    def count(self, numbers: int) -> None:
        """A range is to count so far."""
        self.counted += numbers
        if max(self.counted, self.turns) > MAX_ITERATIONS:
            raise BadInput(f"the chat template counts past {MAX_ITERATIONS:,}; use another")

    def make(self, size: int) -> None:
        """A text of `size` characters, or a list of so many items, is to be made."""
        self.tick()
        self.made += size
        if size > MAX_TEXT or self.made > MAX_TOTAL:
            raise BadInput(
                f"the chat template makes a text or a list of {size:,}, and {self.made:,} in all; there is no use for "
                "so much, so use another"
            )

    def check(self, value: Any) -> Any:
        """The value, once it is known to be of a bearable size, all that is in it counted as often as it is there."""
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise BadInput("the chat template makes a number of more than a thousand digits; use another")
        elif isinstance(value, str | Sequence | Mapping | Set):
            self.make(len(value))
            if not isinstance(value, str) and estimated_length(value, MAX_TEXT) > MAX_TEXT:
                raise BadInput(
                    f"the chat template makes lists in lists of more than {MAX_TEXT:,} characters; use another"
                )
        else:
            self.tick()
        return value


def estimated_length(value: Any, most: int = MAX_TEXT) -> int:
    """About how many characters it takes to write a value out, indents included; somewhat more than `most` is enough.

    >>> spelt("four"), spelt(["four"]), spelt([[]] * 10**6, most=1000) > 1000
    (4, 52, True)
    """
    size, left = 0, [(value, 0)]
    while left and size <= most:
        part, depth = left.pop()
        size += 16 * depth
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, range):
            size += 40
        elif isinstance(part, Mapping | Sequence | Set):
            size += 16 + 16 * len(part)
            if size <= most:
                left += [(each, depth + 1) for each in part]
            if size <= most and isinstance(part, Mapping):
                left += [(each, depth + 1) for each in part.values()]
        else:
            size += 16
    return size


def method_result_size(owner: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How much a method is going to make."""
    if name == "replace":
        old, new = args[:2]
        times: int = owner.count(old)
        return length(owner) + times * len(new)
    if name == "join":
        return sum(len(owner) * len(parts) + estimated_length(parts) for parts in args)
    if name == "format":
        fields = [field for field in Formatter().parse(owner) if field[1] is not None]
        if any(spec for _, _, spec, _ in fields):
            raise BadInput("the chat template formats text by a width, which can be of any size; use another")
        return len(owner) + len(fields) * estimated_length([args, kwargs])
    return length(owner)


def length(value: Any) -> int:
    """Of a text or a list; 1 of all else."""
    return len(value) if isinstance(value, str | bytes | Sequence | Mapping | Set) else 1


def bit_count(number: float) -> int:
    """Of a whole number; those of any other are bounded."""
    return number.bit_length() if isinstance(number, int) else 1
