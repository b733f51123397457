"""Limits of one rendering of an untrusted template: output, created values, iterations and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from string import Formatter
from typing import Any

from clearstory.errors import BadInput

MAX_TEXT = 2**24
"""Characters that a template may output, and of any value it creates."""

MAX_TOTAL = 2**27
"""Characters of all values that it creates, together; an item of a list counts as one."""

MAX_ITERATIONS = 100_000
"""Iterations of all loops together, and numbers of all ranges."""

MAX_SECONDS = 10.0
"""CPU seconds. An ordinary template takes milliseconds."""

MAX_BITS = 4096
"""Bits of an integer."""


class RenderBudget:
    """What one rendering has used of its limits."""

    def __init__(self) -> None:
        self.written = self.made = self.turns = self.counted = 0
        self.end = time.thread_time() + MAX_SECONDS
        self.next = 0.0

    def check_clock(self) -> None:
        """Check the clock, at most every tenth of a second: reading CPU time is slow on some machines."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 0.1
        if time.thread_time() > self.end:
            raise BadInput(f"the chat template takes more than {MAX_SECONDS:g} seconds; use another template")

    def count_output(self, size: int) -> None:
        """Count output of `size` characters."""
        self.check_clock()
        self.written += size
        if self.written > MAX_TEXT:
            raise BadInput(f"the chat template outputs more than {MAX_TEXT:,} characters; use another template")

    def count_iteration(self, size: int) -> None:
        """Count an iteration of a loop that outputs `size` characters of the template's own text."""
        self.turns += 1
        self.count_range(0)
        self.count_output(size)

    def count_range(self, numbers: int) -> None:
        """Count the numbers of a range."""
        self.counted += numbers
        if max(self.counted, self.turns) > MAX_ITERATIONS:
            raise BadInput(f"the chat template iterates more than {MAX_ITERATIONS:,} times; use another template")

    def count_value(self, size: int) -> None:
        """Count a value of `size` characters or items."""
        self.check_clock()
        self.made += size
        if size > MAX_TEXT or self.made > MAX_TOTAL:
            raise BadInput(
                f"the chat template creates a text or list of {size:,}, and {self.made:,} in all, above its limit; "
                "use another template"
            )

    def check(self, value: Any) -> Any:
        """The value, after its size was counted, with everything inside it as often as it occurs."""
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise BadInput(
                    "the chat template creates a number of more than a thousand digits; use another template"
                )
        elif isinstance(value, str | Sequence | Mapping | Set):
            self.count_value(len(value))
            if not isinstance(value, str) and estimated_length(value, MAX_TEXT) > MAX_TEXT:
                raise BadInput(
                    f"the chat template creates nested lists of more than {MAX_TEXT:,} characters; use another template"
                )
        else:
            self.check_clock()
        return value


def estimated_length(value: Any, most: int = MAX_TEXT) -> int:
    """Estimated number of characters of a value's JSON, indentation included; stops a little above `most`.

    >>> estimated_length("four"), estimated_length(["four"]), estimated_length([[]] * 10**6, most=1000) > 1000
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
    """Upper bound of the size of a method's result."""
    if name == "replace":
        old, new = args[:2]
        times: int = owner.count(old)
        return length(owner) + times * len(new)
    if name == "join":
        return sum(len(owner) * len(parts) + estimated_length(parts) for parts in args)
    if name == "format":
        fields = [field for field in Formatter().parse(owner) if field[1] is not None]
        if any(spec for _, _, spec, _ in fields):
            raise BadInput(
                "the chat template formats text with a width, which can be of any size; use another template"
            )
        return len(owner) + len(fields) * estimated_length([args, kwargs])
    return length(owner)


def length(value: Any) -> int:
    """Length of a string or collection; 1 for anything else."""
    return len(value) if isinstance(value, str | bytes | Sequence | Mapping | Set) else 1


def bit_count(number: float) -> int:
    """Bits of an integer; 1 for other numbers."""
    return number.bit_length() if isinstance(number, int) else 1
