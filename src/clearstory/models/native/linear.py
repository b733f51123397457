"""Linear layers computed by the compiled kernels: constant weights in blocks, read in one stream."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.native.library import MatrixStruct, load_library

FP32, FP16, INT8, INT8_GROUPS, INT4_GROUPS = range(5)
"""Types of weights; matrix.h."""

LANES, PAIR, BLOCK_OUTS = 32, 64, 4
"""Inputs that lie together, inputs of two groups, and outputs of a block; matrix.h."""


class NativeMatrix:
    """A constant matrix as the kernels read it, with the tensors that hold its numbers."""

    def __init__(
        self,
        kind: int,
        shape: tuple[int, ...],
        blocks: Tensor,
        scales: Tensor | None = None,
        columns: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        library = load_library()
        assert library is not None, "native kernels are asked for first"
        self.product: Any = library.matrix_product
        self.tensors = (blocks, scales, columns, bias)
        addresses = [None if each is None else each.data_ptr() for each in self.tensors]
        self.struct = MatrixStruct(kind, *shape, *addresses)
        self.reference = ctypes.byref(self.struct)

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """(x · columns) Wᵀ + b of fp32 rows."""
        x = x.contiguous()
        rows, outs = len(x), self.struct.outs
        out = x.new_empty(rows, outs)
        self.product(self.reference, x.data_ptr(), rows, x.shape[1], out.data_ptr(), outs, torch.get_num_threads())
        return out


def float_blocks(weight: Shaped[Tensor, "O I"], dtype: torch.dtype) -> Tensor:
    """A matrix in blocks, (O / 4, I / 32, 4, 32), padded with zeros."""
    return in_blocks(weight.to(dtype), LANES)


def in_blocks(weight: Shaped[Tensor, "O I"], lanes: int) -> Shaped[Tensor, "B G R L"]:
    """Rows in fours, `lanes` columns of each row beside those of the next."""
    outs, ins = weight.shape
    weight = F.pad(weight, (0, -ins % lanes, 0, -outs % BLOCK_OUTS))
    return weight.view(len(weight) // BLOCK_OUTS, BLOCK_OUTS, -1, lanes).transpose(1, 2).contiguous()


def group_blocks(
    integers: Shaped[Tensor, "O I"], scale: Float[Tensor, "O G"], offset: Float[Tensor, "O G"], four_bits: bool
) -> Tensor:
    """Groups of 32 inputs as integer · scale + offset in blocks of bytes: integers, then scales and offsets in fp16."""
    whole = in_blocks(integers.to(torch.int8), PAIR)  # (B, P, 4, 64)
    if four_bits:
        whole = whole[..., :LANES] | whole[..., LANES:] << 4
    pairs = torch.stack([in_pairs(scale), in_pairs(offset)], 2)  # (B, P, 2, 2, 4)
    parts = [whole.flatten(2).view(torch.uint8), pairs.half().flatten(2).view(torch.uint8)]
    return torch.cat(parts, -1)


def in_pairs(numbers: Float[Tensor, "O G"]) -> Float[Tensor, "B P 2 R"]:
    """One number of each group, two groups beside each other, those of a block's outputs last."""
    outs, groups = numbers.shape
    padded = F.pad(numbers, (0, -groups % 2, 0, -outs % BLOCK_OUTS))
    return padded.view(len(padded) // BLOCK_OUTS, BLOCK_OUTS, -1, 2).permute(0, 2, 3, 1)
