"""Rules: the names and layouts of weights, each stated once and carried both ways.

A rule works on the tensors of one layer at a time, so that a large model is never held twice, and on the meta device as
well: pushing a model's empty shell says which names and shapes its folder must have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

KINDS = ("weight", "bias")


class WeightRule(Protocol):
    """One agreement between their weights and ours; `{layer}` in a name stands for the layer's number."""

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        """Ours, from those of theirs that are there."""

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        """Theirs, from those of ours that are there."""


@dataclass(frozen=True)
class Rename:
    """The same map under another name; `turned` for GPT-2's Conv1D, which stores (in, out) where Linear has (out, in).

    >>> Moved("ln_f", "norm").push({"norm.weight": torch.ones(2)}, 0)
    {'ln_f.weight': tensor([1., 1.])}
    """

    theirs: str
    ours: str
    transposed: bool = False

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        return self.carry(theirs, self.theirs, self.ours, layer)

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        return self.carry(ours, self.ours, self.theirs, layer)

    def carry(self, weights: Weights, source: str, target: str, layer: int) -> dict[str, Tensor]:
        """Both ways are the same but for the names."""
        source, target = source.format(layer=layer), target.format(layer=layer)
        found = {kind: weights[f"{source}.{kind}"] for kind in KINDS if f"{source}.{kind}" in weights}
        return {f"{target}.{kind}": turn(tensor) if self.transposed else tensor for kind, tensor in found.items()}


@dataclass(frozen=True)
class RenameTensor:
    """A tensor that is no map's weight or bias, under another name."""

    theirs: str
    ours: str

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        return {self.ours: theirs[self.theirs]} if self.theirs in theirs else {}

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        return {self.theirs: ours[self.ours]} if self.ours in ours else {}


@dataclass(frozen=True)
class Fuse:
    """Several maps stored as one, their outputs one after another: `rows` says how many each has."""

    theirs: str
    ours: tuple[str, ...]
    rows: tuple[int, ...]
    transposed: bool = False

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for kind in KINDS:
            name = f"{self.theirs.format(layer=layer)}.{kind}"
            if name not in theirs:
                continue
            whole = turn(theirs[name]) if self.transposed else theirs[name]
            for ours, part in zip(self.ours, torch.split(whole, list(self.rows)), strict=True):
                out[f"{ours.format(layer=layer)}.{kind}"] = part
        return out

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for kind in KINDS:
            parts = [ours.get(f"{name.format(layer=layer)}.{kind}") for name in self.ours]
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                whole = join(found)
                out[f"{self.theirs.format(layer=layer)}.{kind}"] = turn(whole) if self.transposed else whole
        return out


@dataclass(frozen=True)
class Identity:
    """Our own names, as they are."""

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        return dict(theirs)

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        return dict(ours)


def join(parts: list[Tensor]) -> Tensor:
    """Rows of one after rows of another. A shell's are only counted: torch.cat on meta imports torch._dynamo, 1.5 s."""
    if parts[0].is_meta:
        return parts[0].new_empty(sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return torch.cat(parts)


def turn(tensor: Tensor) -> Tensor:
    """Rows for columns, laid out anew; vectors as they are."""
    return tensor.t().contiguous() if tensor.ndim == 2 else tensor


@dataclass(frozen=True)
class WeightMap:
    """All rules of one architecture: those outside the layers, those that every layer repeats, and those of a second
    stack beside the first.
    """

    outside: tuple[WeightRule, ...]
    inside: tuple[WeightRule, ...] = ()
    layers: int = 0
    beside: WeightMap | None = None

    def from_native(self, ours: Weights) -> Iterator[tuple[str, Tensor]]:
        """Theirs from ours, one after another."""
        for layer, rule in self.walk():
            yield from rule.from_native(ours, layer).items()

    def to_native(self, theirs: Weights) -> Iterator[tuple[str, Tensor]]:
        """Ours from theirs, one after another."""
        for layer, rule in self.walk():
            yield from rule.to_native(theirs, layer).items()

    def walk(self) -> Iterator[tuple[int, WeightRule]]:
        """Every rule with every layer it speaks of."""
        for rule in self.outside:
            yield 0, rule
        for layer in range(self.layers):
            for rule in self.inside:
                yield layer, rule
        if self.beside is not None:
            yield from self.beside.walk()
