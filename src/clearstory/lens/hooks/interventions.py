"""Edits: what one may change inside of a model, as data, in a few words, and as Python.

    head 5.3 off                    head 3 of layer 5 says nothing (mean: the same at every token; x0.5: half)
    attention 5 off                 all heads of layer 5; also cross-head, cross-attention, feed-forward, layer
    cell 5.3 7 2 0.9                in head 5.3, token 7 takes 0.9 from token 2, and the rest is shared as before
    steer 6 4 all "joy" "grief"     after layer 6, 4 times what parts the two texts is added to all tokens, or the last
    patch 6 7 "another text"        after layer 6 (or foot), token 7 is what it is in another text

`encoder` before any of them is the other half of an encoder-decoder. Layers, heads and tokens are counted from 0.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from clearstory.errors import BadSetting, UnknownName, nearest

ScaledPart = Literal["head", "cross-head", "attention", "cross-attention", "feed-forward", "layer"]
Where = Literal["all", "last"]
StackName = Literal["writing", "encoder"]

EMBEDDING_LAYER = -1
"""The number of the layer below the first: the stream as it begins."""


@dataclass(frozen=True, kw_only=True)
class ScaleOutput:
    """What a part adds, times `by`: 0 takes it away; or at every token its mean over the tokens of the text.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 2.3.
    """

    part: ScaledPart
    layer: int
    head: int | None = None
    by: float | Literal["mean"] = 0.0
    half: StackName = "writing"

    def __str__(self) -> str:
        place = self.layer if self.head is None else f"{self.layer}.{self.head}"
        how = {"mean": "mean", 0.0: "off"}.get(self.by) or f"x{shortest_number(self.by)}"
        return f"{prefix(self.half)}{self.part} {place} {how}"


@dataclass(frozen=True, kw_only=True)
class SetAttentionWeight:
    """How much one token (row) takes from another (column) in one head; the rest of the row keeps its proportions."""

    layer: int
    head: int
    row: int
    column: int
    weight: float
    cross: bool = False
    half: StackName = "writing"

    def __str__(self) -> str:
        cell = f"{'cross-' * self.cross}cell {self.layer}.{self.head} {self.row} {self.column} {shortest_number(self.weight)}"
        return prefix(self.half) + cell


@dataclass(frozen=True, kw_only=True)
class AddSteeringVector:
    """`by` times the stream of `toward` less that of `away`, after their last tokens, added after a layer.

    Turner et al. 2023, "Activation Addition"; at their last tokens as in Rimsky et al. 2023, section 3.
    """

    layer: int
    by: float
    where: Where
    toward: str
    away: str
    half: StackName = "writing"

    def __str__(self) -> str:
        texts = f"{shlex.quote(self.toward)} {shlex.quote(self.away)}"
        return f"{prefix(self.half)}steer {named(self.layer)} {shortest_number(self.by)} {self.where} {texts}"


@dataclass(frozen=True, kw_only=True)
class PatchResidual:
    """The stream after a layer at one token, put there from another text of as many tokens.

    Meng et al. 2022, "Locating and Editing Factual Associations in GPT", section 2.
    """

    layer: int
    place: int
    other: str
    half: StackName = "writing"

    def __str__(self) -> str:
        return f"{prefix(self.half)}patch {named(self.layer)} {self.place} {shlex.quote(self.other)}"


Intervention = ScaleOutput | SetAttentionWeight | AddSteeringVector | PatchResidual

GRAMMAR = {
    **{part: f"{part} L{'.H' * part.endswith('head')} off|mean|xN" for part in get_args(ScaledPart)},
    "cell": "cell L.H ROW COLUMN WEIGHT",
    "cross-cell": "cross-cell L.H ROW COLUMN WEIGHT",
    "steer": 'steer L N all|last "TOWARD" "AWAY"',
    "patch": 'patch L TOKEN "OTHER TEXT"',
}
"""How each edit is written."""


def prefix(half: StackName) -> str:
    """What stands before an edit of the other half."""
    return "encoder " if half == "encoder" else ""


def shortest_number(value: float | str) -> str:
    """A number in as few digits as give it back.

    >>> exact(4.0), exact(0.1)
    ('4', '0.1')
    """
    return str(value).removesuffix(".0")


def named(layer: int) -> str:
    """A layer in words."""
    return "foot" if layer == EMBEDDING_LAYER else str(layer)


def parse_intervention(said: str) -> Intervention:
    """An edit from words. Raises UnknownName for a kind that is not there, BadSetting with how it is written.

    >>> parse("head 5.3 off")
    Scale(part='head', layer=5, head=3, by=0.0, half='writing')
    >>> str(parse('patch foot 7 "the other text"'))
    "patch foot 7 'the other text'"
    """
    try:
        words = shlex.split(said)
    except ValueError:
        raise BadSetting(f"the edit '{said}' has a quote that is not closed; close it, or leave it out") from None
    half: StackName = "encoder" if words[:1] == ["encoder"] else "writing"
    kind, *rest = words[half == "encoder" :] or [""]
    if kind not in GRAMMAR:
        raise UnknownName(f"there is no edit called '{kind}'; {nearest(kind, GRAMMAR)}")
    try:
        read: Callable[..., Intervention] = READ.get(kind, scale)
        return read(kind, half, *rest)
    except (TypeError, ValueError):  # too many words or too few, or none that is a number
        raise BadSetting(f"the edit '{said}' cannot be read; write {prefix(half)}{GRAMMAR[kind]}") from None


def scale(part: Any, half: StackName, place: str, how: str) -> Intervention:
    """What a part adds, changed."""
    layer, dot, head = place.partition(".")
    if bool(dot) != part.endswith("head"):
        raise ValueError
    by: Any = {"off": 0.0, "mean": "mean"}.get(how)
    if by is None:
        letter, number = how[:1], how[1:]
        if letter != "x":
            raise ValueError
        by = parse_finite(number)
    return ScaleOutput(part=part, layer=int(layer), head=int(head) if dot else None, by=by, half=half)


def cell(kind: str, half: StackName, place: str, row: str, column: str, weight: str) -> Intervention:
    """One weight."""
    layer, _, head = place.partition(".")
    places = (int(layer), int(head), int(row), int(column))
    names = ("layer", "head", "row", "column")
    own = dict(zip(names, places, strict=True))
    return SetAttentionWeight(**own, weight=parse_finite(weight), cross=kind == "cross-cell", half=half)


def steer(kind: str, half: StackName, layer: str, by: str, where: Any, toward: str, away: str) -> Intervention:
    """A vector added."""
    if where not in get_args(Where):
        raise ValueError
    return AddSteeringVector(layer=number(layer), by=parse_finite(by), where=where, toward=toward, away=away, half=half)


def patch(kind: str, half: StackName, layer: str, place: str, other: str) -> Intervention:
    """A vector replaced."""
    return PatchResidual(layer=number(layer), place=int(place), other=other, half=half)


def parse_finite(said: str) -> float:
    """A number that is one. Raises ValueError."""
    value = float(said)
    if not math.isfinite(value):
        raise ValueError
    return value


def number(layer: str) -> int:
    """The number of a layer, or of the foot."""
    return EMBEDDING_LAYER if layer == "foot" else int(layer)


READ: dict[str, Callable[..., Intervention]] = {"cell": cell, "cross-cell": cell, "steer": steer, "patch": patch}
"""What reads each kind of edit; all others are parts that are scaled."""


def interventions_to_json(edits: Sequence[Intervention]) -> list[dict[str, Any]]:
    """Edits as plain data, ready for JSON; `from_data` takes them back. To undo is to leave the last away.

    >>> to_data([parse("layer 2 off")])
    [{'edit': 'Scale', 'part': 'layer', 'layer': 2, 'head': None, 'by': 0.0, 'half': 'writing'}]
    """
    return [{"edit": type(each).__name__, **asdict(each)} for each in edits]


def interventions_from_json(said: Sequence[dict[str, Any]]) -> list[Intervention]:
    """Edits from plain data. Raises BadSetting for what is none."""
    kinds = {each.__name__: each for each in get_args(Intervention)}
    found = []
    for each in said:
        own = dict(each)
        kind = kinds.get(own.pop("edit", ""))
        try:
            if kind is None:
                raise TypeError
            # Read once more from its words, which checks every value.
            found.append(parse_intervention(str(kind(**own))))
        except (TypeError, ValueError):
            raise BadSetting(f"{each} is no edit; give what `to_data` writes") from None
    return found


def interventions_to_python(model: str, text: str, edits: Sequence[Intervention], target: str | None = None) -> str:
    """The Python that makes these edits and shows what comes of them."""
    kinds = sorted({type(each).__name__ for each in edits})
    listed = "".join(f"    {each!r},\n" for each in edits)
    written = "" if target is None else f", target={target!r}"
    imported = f"from clearstory.lens.hooks.interventions import {', '.join(kinds)}\n" if kinds else ""
    return (
        f"import clearstory\n{imported}"
        "from clearstory.lens.hooks.apply_interventions import intervene\n"
        "from clearstory.lens.hooks.passage import passage\n\n"
        f"opened = clearstory.open({model!r})\n"
        f"read = passage(opened.model, opened.tokenizer, {text!r}{written})\n"
        f"edits = [\n{listed}]\n"
        "outcome = intervene(opened.model, opened.tokenizer, read, edits)\n"
        "print(outcome.kl, outcome.moves(10))\n"
    )
