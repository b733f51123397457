"""Interventions: changes to a forward pass as data, with a text syntax, a JSON form and a Python form.

    head 5.3 off                    head 3 of layer 5 outputs zero (mean: its mean over the tokens; x0.5: half)
    attention 5 off                 all heads of layer 5; also cross-head, cross-attention, feed-forward, layer
    cell 5.3 7 2 0.9                in head 5.3, token 7 attends to token 2 with weight 0.9; the rest is rescaled
    steer 6 4 all "joy" "grief"     after layer 6, add 4 times the difference of two texts to all tokens (or: last)
    patch 6 7 "another text"        after layer 6 (or embedding), token 7 gets its vector from another text

`encoder` before any of them selects the encoder of an encoder-decoder. Layers, heads and tokens are counted from 0.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from clearstory.errors import BadSetting, UnknownName, nearest

ScaledPart = Literal["head", "cross-head", "attention", "cross-attention", "feed-forward", "layer"]
SteeredTokens = Literal["all", "last"]
StackName = Literal["output", "encoder"]
"""The stack that logits are computed from, or the encoder of an encoder-decoder."""

EMBEDDING_LAYER = -1
"""The layer number of the embedding output."""


@dataclass(frozen=True, kw_only=True)
class ScaleOutput:
    """Multiply the output of a part by `factor`: 0 removes it; "mean" replaces it by its mean over the text's tokens.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 2.3.
    """

    part: ScaledPart
    layer: int
    head: int | None = None
    factor: float | Literal["mean"] = 0.0
    stack: StackName = "output"

    def __str__(self) -> str:
        where = self.layer if self.head is None else f"{self.layer}.{self.head}"
        how = {"mean": "mean", 0.0: "off"}.get(self.factor) or f"x{shortest_number(self.factor)}"
        return f"{stack_prefix(self.stack)}{self.part} {where} {how}"


@dataclass(frozen=True, kw_only=True)
class SetAttentionWeight:
    """Set one attention weight, from query `row` to key `column`; the other weights of the row are rescaled."""

    layer: int
    head: int
    row: int
    column: int
    weight: float
    cross: bool = False
    stack: StackName = "output"

    def __str__(self) -> str:
        name = "cross-cell" if self.cross else "cell"
        cell = f"{name} {self.layer}.{self.head} {self.row} {self.column} {shortest_number(self.weight)}"
        return stack_prefix(self.stack) + cell


@dataclass(frozen=True, kw_only=True)
class AddSteeringVector:
    """Add `factor` times the difference of two texts' residual streams, `toward` − `away`, after a layer.

    The streams are taken at the texts' last tokens. Turner et al. 2023, "Activation Addition"; last tokens as in Rimsky
    et al. 2023, section 3.
    """

    layer: int
    factor: float
    tokens: SteeredTokens
    toward: str
    away: str
    stack: StackName = "output"

    def __str__(self) -> str:
        texts = f"{shlex.quote(self.toward)} {shlex.quote(self.away)}"
        number = shortest_number(self.factor)
        return f"{stack_prefix(self.stack)}steer {layer_name(self.layer)} {number} {self.tokens} {texts}"


@dataclass(frozen=True, kw_only=True)
class PatchResidual:
    """Replace the residual stream of one token after a layer by that of another text with as many tokens.

    Meng et al. 2022, "Locating and Editing Factual Associations in GPT", section 2.
    """

    layer: int
    position: int
    other_text: str
    stack: StackName = "output"

    def __str__(self) -> str:
        other = shlex.quote(self.other_text)
        return f"{stack_prefix(self.stack)}patch {layer_name(self.layer)} {self.position} {other}"


Intervention = ScaleOutput | SetAttentionWeight | AddSteeringVector | PatchResidual

SYNTAX = {
    **{part: f"{part} L{'.H' * part.endswith('head')} off|mean|xN" for part in get_args(ScaledPart)},
    "cell": "cell L.H ROW COLUMN WEIGHT",
    "cross-cell": "cross-cell L.H ROW COLUMN WEIGHT",
    "steer": 'steer L N all|last "TOWARD" "AWAY"',
    "patch": 'patch L TOKEN "OTHER TEXT"',
}
"""The syntax of each kind of intervention."""


def stack_prefix(stack: StackName) -> str:
    """The word before an intervention in the encoder."""
    return "encoder " if stack == "encoder" else ""


def shortest_number(value: float | str) -> str:
    """The shortest text that parses to the same number.

    >>> shortest_number(4.0), shortest_number(0.1)
    ('4', '0.1')
    """
    return str(value).removesuffix(".0")


def layer_name(layer: int) -> str:
    """A layer's number, or "embedding"."""
    return "embedding" if layer == EMBEDDING_LAYER else str(layer)


def parse_intervention(text: str) -> Intervention:
    """Parse an intervention. Raises UnknownName for an unknown kind, BadSetting with the syntax for a malformed one.

    >>> parse_intervention("head 5.3 off")
    ScaleOutput(part='head', layer=5, head=3, factor=0.0, stack='output')
    >>> str(parse_intervention('patch embedding 7 "the other text"'))
    "patch embedding 7 'the other text'"
    """
    try:
        words = shlex.split(text)
    except ValueError:
        raise BadSetting(f"the intervention '{text}' has an unclosed quote; close it, or leave it out") from None
    stack: StackName = "encoder" if words[:1] == ["encoder"] else "output"
    kind, *arguments = words[stack == "encoder" :] or [""]
    if kind not in SYNTAX:
        raise UnknownName(f"unknown intervention '{kind}'; {nearest(kind, SYNTAX)}")
    try:
        parse: Callable[..., Intervention] = PARSERS.get(kind, parse_scale)
        return parse(kind, stack, *arguments)
    except (TypeError, ValueError):  # wrong number of arguments, or one that is not a number
        raise BadSetting(f"the intervention '{text}' is malformed; write {stack_prefix(stack)}{SYNTAX[kind]}") from None


def parse_scale(part: Any, stack: StackName, where: str, how: str) -> Intervention:
    """Parse the arguments of a ScaleOutput."""
    layer, dot, head = where.partition(".")
    if bool(dot) != part.endswith("head"):
        raise ValueError
    factor: Any = {"off": 0.0, "mean": "mean"}.get(how)
    if factor is None:
        letter, number = how[:1], how[1:]
        if letter != "x":
            raise ValueError
        factor = parse_finite(number)
    return ScaleOutput(part=part, layer=int(layer), head=int(head) if dot else None, factor=factor, stack=stack)


def parse_weight(kind: str, stack: StackName, where: str, row: str, column: str, weight: str) -> Intervention:
    """Parse the arguments of a SetAttentionWeight."""
    layer, _, head = where.partition(".")
    return SetAttentionWeight(
        layer=int(layer),
        head=int(head),
        row=int(row),
        column=int(column),
        weight=parse_finite(weight),
        cross=kind == "cross-cell",
        stack=stack,
    )


def parse_steering(
    kind: str, stack: StackName, layer: str, factor: str, tokens: Any, toward: str, away: str
) -> Intervention:
    """Parse the arguments of an AddSteeringVector."""
    if tokens not in get_args(SteeredTokens):
        raise ValueError
    return AddSteeringVector(
        layer=parse_layer(layer), factor=parse_finite(factor), tokens=tokens, toward=toward, away=away, stack=stack
    )


def parse_patch(kind: str, stack: StackName, layer: str, position: str, other_text: str) -> Intervention:
    """Parse the arguments of a PatchResidual."""
    return PatchResidual(layer=parse_layer(layer), position=int(position), other_text=other_text, stack=stack)


def parse_finite(text: str) -> float:
    """A finite number. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def parse_layer(layer: str) -> int:
    """The number of a layer, or of the embedding output."""
    return EMBEDDING_LAYER if layer == "embedding" else int(layer)


PARSERS: dict[str, Callable[..., Intervention]] = {
    "cell": parse_weight,
    "cross-cell": parse_weight,
    "steer": parse_steering,
    "patch": parse_patch,
}
"""The parser of each kind; all other kinds are parts that are scaled."""


def interventions_to_json(interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    """Interventions as plain data for JSON; `interventions_from_json` reads it back.

    >>> interventions_to_json([parse_intervention("layer 2 off")])
    [{'kind': 'ScaleOutput', 'part': 'layer', 'layer': 2, 'head': None, 'factor': 0.0, 'stack': 'output'}]
    """
    return [{"kind": type(each).__name__, **asdict(each)} for each in interventions]


def interventions_from_json(data: Sequence[dict[str, Any]]) -> list[Intervention]:
    """Interventions from plain data. Raises BadSetting for anything else."""
    kinds = {each.__name__: each for each in get_args(Intervention)}
    found = []
    for each in data:
        fields = dict(each)
        kind = kinds.get(fields.pop("kind", ""))
        try:
            if kind is None:
                raise TypeError
            # Parsing its text checks every value.
            found.append(parse_intervention(str(kind(**fields))))
        except (TypeError, ValueError):
            raise BadSetting(f"{each} is not an intervention; give what `interventions_to_json` returns") from None
    return found


def interventions_to_python(
    model: str, text: str, interventions: Sequence[Intervention], target: str | None = None
) -> str:
    """A Python program that applies these interventions and prints their effect."""
    kinds = sorted({type(each).__name__ for each in interventions})
    listed = "".join(f"    {each!r},\n" for each in interventions)
    target_argument = "" if target is None else f", target={target!r}"
    imports = f"from clearstory.lens.hooks.interventions import {', '.join(kinds)}\n" if kinds else ""
    return (
        f"import clearstory\n{imports}"
        "from clearstory.lens.hooks.apply_interventions import run_interventions\n"
        "from clearstory.lens.hooks.passage import encode_passage\n\n"
        f"opened = clearstory.open({model!r})\n"
        f"passage = encode_passage(opened.model, opened.tokenizer, {text!r}{target_argument})\n"
        f"interventions = [\n{listed}]\n"
        "outcome = run_interventions(opened.model, opened.tokenizer, passage, interventions)\n"
        "print(outcome.kl, outcome.largest_changes(10))\n"
    )
