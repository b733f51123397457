"""Pairs: what two views have in common, by their labels, and what differs between them in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearstory.errors import CannotDo
from clearstory.lens.rendering.scales import cell_text
from clearstory.lens.views import View


def titled(a: View, b: View) -> str:
    """What is taken from what."""
    return f"B − A: {a.title}" if a.title == b.title else f"B − A: {b.title} (B), {a.title} (A)"


def same_unit(a: str, b: str) -> str:
    """The unit of both."""
    if a != b:
        raise CannotDo(f"A counts {a or 'plain numbers'} and B {b or 'plain numbers'}; give both the same settings")
    return a


@dataclass(frozen=True)
class Pairs:
    """Labels that two sides have in common: the place of each in A and in B, and what is to be said about that."""

    labels: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    note: str = ""


def paired(a: Sequence[str], b: Sequence[str], what: str) -> Pairs:
    """Labels place by place, where at least half are the same; units, which have numbers, by those that both show."""
    if all(each.isdecimal() for each in (*a, *b)) and tuple(a) != tuple(b):
        both = [each for each in a if each in b]
        if both:
            note = f"Of {len(a):,} and {len(b):,} {what} the {len(both):,} that both have."
            return Pairs(tuple(both), tuple((list(a).index(each), list(b).index(each)) for each in both), note)
    if len(a) != len(b):
        raise CannotDo(
            f"A has {len(a):,} {what} and B has {len(b):,}, which stand for different things; compare sentences of as "
            "many tokens in models of as many layers, or choose next, which compares any two"
        )
    pairs = [(plain(x), plain(y)) for x, y in zip(a, b, strict=True)]
    same = sum(x == y for x, y in pairs)
    if 2 * same < len(pairs):
        x, y = next(pair for pair in pairs if pair[0] != pair[1])
        raise CannotDo(
            f"only {same:,} of {len(pairs):,} {what} are the same in A and B (‘{x}’ stands where ‘{y}’ does); change "
            "fewer words, or choose next, which compares any two sentences"
        )
    labels = tuple(x if plain(x) == plain(y) else became(plain(x), plain(y)) for x, y in zip(a, b, strict=True))
    other = [f"‘{x}’ in A is ‘{y}’ in B" for x, y in pairs if x != y]
    return Pairs(labels, tuple((at, at) for at in range(len(a))), f"{'; '.join(other)}." if other else "")


def plain(label: str) -> str:
    """A token without the place that tells it from its like.

    >>> plain("the·2")
    'the'
    """
    return re.sub(r"(?<=.)·\d+$", "", label)


def became(a: str, b: str) -> str:
    """What stands in A and in B.

    >>> became("cat", "dog"), became("cat", "cat")
    ('cat→dog', 'cat')
    """
    return a if a == b else f"{a}→{b}"


def signed(value: float) -> str:
    """A difference in a few characters.

    >>> signed(0.25), signed(-1234.5), signed(0.0)
    ('+0.25', '−1.2e3', '0')
    """
    if not value or not math.isfinite(value):
        return "0" if value == 0 else "−∞"
    text = re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1].strip('+')}{e[2]}", f"{abs(value):.2g}")
    return ("+" if value > 0 else "−") + text


def found(cells: Sequence[tuple[float, str, float, float]]) -> str:
    """The largest differences in words: of each its value, its name, and both numbers.

    >>> found([(0.25, "‘a’", 0.5, 0.75), (0.0, "‘b’", 0.1, 0.1)])
    'Most gained in B: ‘a’ by 0.25 (0.5 → 0.75).'
    """
    if not any(value for value, *_ in cells):
        return "No number differs between A and B."
    most, least = max(cells, key=lambda each: each[0]), min(cells, key=lambda each: each[0])
    ends = [("gained", most)] * (most[0] > 0) + [("lost", least)] * (least[0] < 0)
    said = "; ".join(
        f"most {word} in B: {name} by {cell_text(abs(value))} ({cell_text(a)} → {cell_text(b)})"
        for word, (value, name, a, b) in ends
    )
    return f"M{said[1:]}."


def average(cells: Sequence[tuple[float, str, float, float]], unit: str) -> str:
    """How far apart the sides are on average."""
    mean = math.fsum(abs(value) for value, *_ in cells) / len(cells)
    return f"On average {cell_text(mean)}{f' {unit}' if unit else ''} apart."
