"""Weight map: names and layouts of weights in another format, each rule applied in both directions.

A rule converts one layer at a time, so that a large model is never held twice. It also works on the meta device:
converting a model without data gives the names and shapes its file must have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

PARAMETERS = ("weight", "bias")


class WeightRule(Protocol):
    """A mapping between external and native weights; `{layer}` in a name is the layer's index.

    Weights that are absent are skipped in both directions.
    """

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        """Native weights of one layer."""

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        """External weights of one layer."""


@dataclass(frozen=True)
class Rename:
    """A module under another name; `transposed` for GPT-2's Conv1D, which stores (in, out) where Linear stores (out,
    in).

    >>> Rename("ln_f", "norm").from_native({"norm.weight": torch.ones(2)}, 0)
    {'ln_f.weight': tensor([1., 1.])}
    """

    external: str
    native: str
    transposed: bool = False

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        return self.convert(external, self.external, self.native, layer)

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        return self.convert(native, self.native, self.external, layer)

    def convert(self, weights: Weights, source: str, target: str, layer: int) -> dict[str, Tensor]:
        """The module's weight and bias under the target name."""
        source, target = source.format(layer=layer), target.format(layer=layer)
        tensors = {name: weights[f"{source}.{name}"] for name in PARAMETERS if f"{source}.{name}" in weights}
        return {
            f"{target}.{name}": transpose(tensor) if self.transposed else tensor for name, tensor in tensors.items()
        }


@dataclass(frozen=True)
class RenameTensor:
    """A single tensor, not a module, under another name."""

    external: str
    native: str

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        return {self.native: external[self.external]} if self.external in external else {}

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        return {self.external: native[self.native]} if self.native in native else {}


@dataclass(frozen=True)
class Fuse:
    """Several native linear layers stored as one: their outputs concatenated, `out_features` of each."""

    external: str
    native: tuple[str, ...]
    out_features: tuple[int, ...]
    transposed: bool = False

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for parameter in PARAMETERS:
            name = f"{self.external.format(layer=layer)}.{parameter}"
            if name not in external:
                continue
            fused = transpose(external[name]) if self.transposed else external[name]
            for native, tensor in zip(self.native, torch.split(fused, list(self.out_features)), strict=True):
                out[f"{native.format(layer=layer)}.{parameter}"] = tensor
        return out

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for parameter in PARAMETERS:
            names = [f"{name.format(layer=layer)}.{parameter}" for name in self.native]
            if all(name in native for name in names):
                fused = concatenate([native[name] for name in names])
                fused = transpose(fused) if self.transposed else fused
                out[f"{self.external.format(layer=layer)}.{parameter}"] = fused
        return out


@dataclass(frozen=True)
class Identity:
    """All weights under their native names."""

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        return dict(external)

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        return dict(native)


def concatenate(tensors: list[Tensor]) -> Tensor:
    """The tensors concatenated along dimension 0. On the meta device torch.cat would import torch._dynamo (1.5 s)."""
    if tensors[0].is_meta:
        return tensors[0].new_empty(sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])
    return torch.cat(tensors)


def transpose(tensor: Tensor) -> Tensor:
    """A matrix transposed and contiguous; vectors unchanged."""
    return tensor.t().contiguous() if tensor.ndim == 2 else tensor


@dataclass(frozen=True)
class WeightMap:
    """All rules of one architecture.

    Args:
        outside: rules applied once.
        per_layer: rules applied to every layer.
        layers: the number of layers.
        second_stack: rules of a second stack (a decoder after an encoder).
    """

    outside: tuple[WeightRule, ...]
    per_layer: tuple[WeightRule, ...] = ()
    layers: int = 0
    second_stack: WeightMap | None = None

    def from_native(self, native: Weights) -> Iterator[tuple[str, Tensor]]:
        """External (name, tensor) pairs, one at a time."""
        for layer, rule in self.rules():
            yield from rule.from_native(native, layer).items()

    def to_native(self, external: Weights) -> Iterator[tuple[str, Tensor]]:
        """Native (name, tensor) pairs, one at a time."""
        for layer, rule in self.rules():
            yield from rule.to_native(external, layer).items()

    def rules(self) -> Iterator[tuple[int, WeightRule]]:
        """Every rule with every layer index it applies to."""
        for rule in self.outside:
            yield 0, rule
        for layer in range(self.layers):
            for rule in self.per_layer:
                yield layer, rule
        if self.second_stack is not None:
            yield from self.second_stack.rules()
