"""Formats of tool calls with an argument in each tag, found by rendering calls with a chat template.

| model | a call of f with {"x": 1} |
|---|---|
| Qwen3-Coder | <tool_call>, <function=f>, <parameter=x>, 1, </parameter>, </function>, </tool_call> |
| GLM 4.5 | <tool_call>f, <arg_key>x</arg_key>, <arg_value>1</arg_value>, </tool_call> |

Each on a line of its own. Arguments that are texts are written as they are, others as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

NAMES = ("q1name", "q2name")
"""Names of the functions in rendered calls."""

KEYS = ("q1key", "q2key", "q3key")
"""Names of their arguments."""

VALUES = ("q1value", "q2value", "q3value")
"""Values of their arguments."""


@dataclass(frozen=True)
class TaggedCallFormat:
    """The text of calls: begin NAME first KEY middle VALUE, for each further argument following KEY middle VALUE, then
    last, or `between` and the name of the next call.

    Args:
        begin: before the name of the first function.
        first: between a name and the name of its first argument.
        middle: between the name of an argument and its value.
        following: between a value and the name of the next argument.
        last: after the last value of the last call.
        none: after the name of a function without arguments, if its call is the last one.
        between: between the last value of a call and the name of the next function; None if an answer has one call.
        none_between: between a name without arguments and the name of the next function.
        mark: the text by which `begin` is recognized after other text, its own beginning; empty if calls begin an
            answer.
        spelled: special tokens in these texts.
    """

    begin: str
    first: str
    middle: str
    following: str
    last: str
    none: str
    between: str | None = None
    none_between: str | None = None
    mark: str = ""
    spelled: frozenset[str] = frozenset()

    @cached_property
    def close(self) -> str:
        """The common beginning of all that may follow a value, by which its end is recognized."""
        return common_prefix(part for part in (self.following, self.last, self.between) if part is not None)

    def write(self, calls: Sequence[tuple[str, Mapping[str, str]]]) -> str:
        """The text of calls, each a name and its arguments as texts."""
        text = self.begin
        for number, (name, arguments) in enumerate(calls):
            ended = number + 1 == len(calls)
            pairs = (key + self.middle + value for key, value in arguments.items())
            text += name + (self.first + self.following.join(pairs) if arguments else "")
            text += (self.last if ended else self.between or "") if arguments else ""
            text += "" if arguments else self.none if ended else self.none_between or ""
        return text


def read_tagged_calls(write: Callable[[Sequence[Any]], str], ends: Collection[str]) -> TaggedCallFormat | None:
    """The format in which a template writes calls; None if it is another one.

    Args:
        write: the text that the template writes for calls of NAMES with these arguments; empty if it refuses them.
        ends: tokens that end a turn.
    """
    one = split_at(write([pairs(2)]), (NAMES[0], KEYS[0], VALUES[0], KEYS[1], VALUES[1]))
    bare = split_at(write([{}]), (NAMES[0],))
    if one is None or bare is None:
        return None
    begin, first, middle, following, _, rest = one
    last, none = before_any(rest, ends), before_any(bare[1], ends)
    if last is None or none is None or not all((begin, first, middle)):
        return None
    two = split_at(write([pairs(1), pairs(1)]), (NAMES[0], KEYS[0], VALUES[0], NAMES[1]))
    bare_two = split_at(write([{}, {}]), (NAMES[0], NAMES[1]))
    several = two is not None and bare_two is not None
    found = TaggedCallFormat(
        begin,
        first,
        middle,
        following,
        last,
        none,
        between=two[3] if two is not None and several else None,
        none_between=bare_two[1] if bare_two is not None and several else None,
    )
    if not found.close:
        return None
    expected = [pairs(3)] * (2 if several else 1)
    written = before_any(write(expected), ends)
    return found if written == found.write(list(zip(NAMES, expected, strict=False))) else None


def pairs(count: int) -> dict[str, str]:
    """Arguments of a call."""
    return dict(zip(KEYS[:count], VALUES, strict=False))


def split_at(text: str, words: Sequence[str]) -> list[str] | None:
    """The parts of a text before, between and after words in this order; None if one is missing.

    >>> split_at("<f>x=1;", ("f", "x", "1"))
    ['<', '>', '=', ';']
    """
    parts = []
    for word in words:
        part, found, text = text.partition(word)
        if not found:
            return None
        parts.append(part)
    return [*parts, text]


def before_any(text: str, ends: Collection[str]) -> str | None:
    """The text before the first of these; None if it has none of them."""
    stop = min((at for at in map(text.find, ends) if at >= 0), default=None)
    return None if stop is None else text[:stop]


def common_prefix(texts: Iterable[str]) -> str:
    """The longest common beginning of texts."""
    return os.path.commonprefix(list(texts))  # noqa: RUF071  # by characters, as meant
