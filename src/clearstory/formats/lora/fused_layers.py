"""Slots: which of our linear maps lie in which of theirs, and how the adapters of several become one.

GPT-2's c_attn and Phi-3's qkv_proj hold query, key and value one after another. Adapters of r columns each become one
of their sum, with B block-diagonal:

    [y_q]          [B_q        ] [A_q]
    [y_k] += scale [    B_k    ] [A_k] x
    [y_v]          [        B_v] [A_v]

and one that others made for the whole is read as several that have the same A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap, Identity
from clearstory.models.lora import Adapted


@dataclass(frozen=True)
class FusedLinear:
    """One linear map of theirs.

    Args:
        theirs: its name.
        ours: the maps that lie in it, one after another.
        rows: outputs of each.
        inside: inputs of all.
        turned: whether it is stored as Conv1D is.
    """

    theirs: str
    ours: tuple[str, ...]
    rows: tuple[int, ...]
    inside: int
    transposed: bool


@dataclass(frozen=True)
class LoRAMatrices:
    """A (rank, in) and B (out, rank) of one map, and alpha."""

    a: Tensor
    b: Tensor
    alpha: float


def fused_linears(rules: WeightMap, maps: Mapping[str, nn.Linear]) -> list[FusedLinear]:
    """Every linear map of theirs that is made of `maps`, by the rules that carry their weights."""
    found: list[FusedLinear] = []
    for layer, rule in rules.walk():
        named: list[tuple[str, tuple[str, ...], bool]] = []
        match rule:
            case Rename():
                named = [(rule.theirs, (rule.ours,), rule.transposed)]
            case Fuse():
                named = [(rule.theirs, rule.ours, rule.transposed)]
            case Identity():
                named = [(name, (name,), False) for name in maps]
        for theirs, ours, transposed in named:
            names = tuple(name.format(layer=layer) for name in ours)
            if all(name in maps for name in names):
                rows = tuple(maps[name].out_features for name in names)
                inside = maps[names[0]].in_features
                found.append(FusedLinear(theirs.format(layer=layer), names, rows, inside, transposed))
    return found


def fuse_lora(slot: FusedLinear, found: Mapping[str, Adapted]) -> LoRAMatrices:
    """What is learnt beside the maps of a slot, as one pair for the whole."""
    here = [(name, found[name]) for name in slot.ours if name in found]
    first = here[0][1]
    scale = first.scale
    parts = {name: each.lora_b.detach() * (each.scale / scale) for name, each in here}
    if len(here) == len(slot.ours) and all(torch.equal(each.lora_a, first.lora_a) for _, each in here):
        return LoRAMatrices(first.lora_a.detach(), torch.cat(list(parts.values())), first.alpha)
    rank = sum(each.rank for _, each in here)
    b = first.lora_b.new_zeros(sum(slot.rows), rank)
    row = column = 0
    for name, rows in zip(slot.ours, slot.rows, strict=True):
        if name in parts:
            part = parts[name]
            b[row : row + rows, column : column + part.shape[1]] = part
            column += part.shape[1]
        row += rows
    return LoRAMatrices(torch.cat([each.lora_a.detach() for _, each in here]), b, scale * rank)


def split_lora(slot: FusedLinear, pair: LoRAMatrices, ranks: Mapping[str, int]) -> dict[str, LoRAMatrices]:
    """What is learnt beside each map of a slot. Where `ranks` tells of blocks and there are such, each gets its own;
    else each gets all of A and its rows of B.
    """
    whole, parts = len(pair.a), torch.split(pair.b, list(slot.rows))
    here = [name for name in slot.ours if name in ranks]
    if len(slot.ours) > 1 and sum(ranks[name] for name in here) == whole:
        found, column, outside = {}, 0, 0
        for name, part in zip(slot.ours, parts, strict=True):
            end = column + ranks.get(name, 0)
            outside += int(part[:, :column].count_nonzero() + part[:, end:].count_nonzero())
            if name in here:
                found[name] = LoRAMatrices(pair.a[column:end], part[:, column:end], pair.alpha / whole * ranks[name])
            column = end
        if not outside:
            return found
    return {name: LoRAMatrices(pair.a.clone(), part, pair.alpha) for name, part in zip(slot.ours, parts, strict=True)}
