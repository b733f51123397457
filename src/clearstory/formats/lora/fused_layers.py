"""LoRA of fused layers: which of our linear layers a linear layer of transformers contains, and their adapters as one.

GPT-2's c_attn and Phi-3's qkv_proj concatenate query, key and value. Adapters of rank r each become one adapter of the
summed rank, with B block-diagonal:

    [y_q]          [B_q        ] [A_q]
    [y_k] += scale [    B_k    ] [A_k] x
    [y_v]          [        B_v] [A_v]

An adapter that was trained on the fused layer becomes several adapters with the same A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearstory.formats.hf.weight_map import Fuse, Identity, Rename, WeightMap
from clearstory.models.lora import LoRALinear


@dataclass(frozen=True)
class FusedLinear:
    """A linear layer of transformers and the native linear layers it contains, often one.

    Args:
        hf_name: its name in transformers.
        native_names: the native layers, in the order of their outputs.
        out_features: outputs of each native layer.
        in_features: inputs of all.
        transposed: whether it is stored as Conv1D.
    """

    hf_name: str
    native_names: tuple[str, ...]
    out_features: tuple[int, ...]
    in_features: int
    transposed: bool


@dataclass(frozen=True)
class LoRAMatrices:
    """The adapter of one linear layer: A (rank, in), B (out, rank) and alpha."""

    a: Tensor
    b: Tensor
    alpha: float


def fused_linears(weight_map: WeightMap, linears: Mapping[str, nn.Linear]) -> list[FusedLinear]:
    """Every linear layer of transformers that consists of the native `linears`, by the weight map's rules."""
    out: list[FusedLinear] = []
    for layer, rule in weight_map.rules():
        candidates: list[tuple[str, tuple[str, ...], bool]] = []
        match rule:
            case Rename():
                candidates = [(rule.external, (rule.native,), rule.transposed)]
            case Fuse():
                candidates = [(rule.external, rule.native, rule.transposed)]
            case Identity():
                candidates = [(name, (name,), False) for name in linears]
        for external, native, transposed in candidates:
            names = tuple(name.format(layer=layer) for name in native)
            if all(name in linears for name in names):
                out_features = tuple(linears[name].out_features for name in names)
                in_features = linears[names[0]].in_features
                out.append(FusedLinear(external.format(layer=layer), names, out_features, in_features, transposed))
    return out


def fuse_lora(linear: FusedLinear, adapters: Mapping[str, LoRALinear]) -> LoRAMatrices:
    """The adapters of the native layers as one adapter of the fused layer."""
    present = [(name, adapters[name]) for name in linear.native_names if name in adapters]
    first = present[0][1]
    scale = first.scale
    blocks = {name: each.lora_b.detach() * (each.scale / scale) for name, each in present}
    same_a = all(torch.equal(each.lora_a, first.lora_a) for _, each in present)
    if len(present) == len(linear.native_names) and same_a:
        return LoRAMatrices(first.lora_a.detach(), torch.cat(list(blocks.values())), first.alpha)
    rank = sum(each.rank for _, each in present)
    b = first.lora_b.new_zeros(sum(linear.out_features), rank)
    row = column = 0
    for name, out_features in zip(linear.native_names, linear.out_features, strict=True):
        if name in blocks:
            block = blocks[name]
            b[row : row + out_features, column : column + block.shape[1]] = block
            column += block.shape[1]
        row += out_features
    return LoRAMatrices(torch.cat([each.lora_a.detach() for _, each in present]), b, scale * rank)


def split_lora(linear: FusedLinear, fused: LoRAMatrices, ranks: Mapping[str, int]) -> dict[str, LoRAMatrices]:
    """The adapter of the fused layer as adapters of its native layers, by name.

    If `ranks` gives the rank of each native layer and B is block-diagonal accordingly, each layer gets its own block;
    otherwise each gets a copy of A and its rows of B.
    """
    rank, blocks = len(fused.a), torch.split(fused.b, list(linear.out_features))
    present = [name for name in linear.native_names if name in ranks]
    if len(linear.native_names) > 1 and sum(ranks[name] for name in present) == rank:
        out, column, n_off_diagonal = {}, 0, 0
        for name, block in zip(linear.native_names, blocks, strict=True):
            end = column + ranks.get(name, 0)
            n_off_diagonal += int(block[:, :column].count_nonzero() + block[:, end:].count_nonzero())
            if name in present:
                out[name] = LoRAMatrices(fused.a[column:end], block[:, column:end], fused.alpha / rank * ranks[name])
            column = end
        if not n_off_diagonal:
            return out
    return {
        name: LoRAMatrices(fused.a.clone(), block, fused.alpha)
        for name, block in zip(linear.native_names, blocks, strict=True)
    }
