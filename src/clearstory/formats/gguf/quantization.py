"""GGUF number formats: how weights are stored, and their values in float32.

Quantized formats store blocks of 32 or 256 numbers of a row: small integers with a scale for each block, and an offset
in asymmetric formats. The common formats are dequantized here in a few torch operations, six times as fast as by the
package `gguf`; the others by that package, which is also the reference in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clearstory.errors import MissingExtra
from clearstory.formats.gguf.integers import (
    BlockGroups,
    Blocks,
    as_float16,
    q4_0,
    q4_1,
    q4_k,
    q5_0,
    q5_1,
    q5_k,
    q6_k,
    q8_0,
)
from clearstory.models.matmul.block_linear import BlockFormat, IntegerGroups


@dataclass(frozen=True)
class QuantizationType:
    """One number format: blocks of `block_size` numbers in `block_bytes` bytes.

    Args:
        code: its code in GGUF files.
        name: its name in GGML.
        block_size: numbers in a block; 1 for floating-point formats.
        block_bytes: bytes of a block.
        read: from blocks (N, block_bytes) to numbers (N, block_size); None for formats that need the package `gguf`.
    """

    code: int
    name: str
    block_size: int
    block_bytes: int
    read: Callable[[Blocks], Tensor] | None = None

    def dequantize(self, raw: UInt8[Tensor, "B"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
        """The numbers in this shape. Raises MissingExtra for a format that needs the package `gguf`."""
        blocks = raw.view(-1, self.block_bytes)
        read = self.read or package_reader(self.code, self.name)
        return read(blocks).reshape(shape)


def group_reader(groups: Callable[[Blocks], BlockGroups]) -> Callable[[Blocks], Tensor]:
    """A reader of integers with a scale for each group."""
    return lambda blocks: groups(blocks).numbers()


def float_reader(dtype: torch.dtype) -> Callable[[Blocks], Tensor]:
    """A reader of unquantized numbers. 16-bit numbers are converted to float32; wider ones stay memory-mapped."""

    def read(blocks: Blocks) -> Tensor:
        values = blocks.view(dtype)
        return values.float() if dtype.itemsize == 2 else values

    return read


def package_reader(code: int, name: str) -> Callable[[Blocks], Tensor]:
    """A reader by the package `gguf`."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise MissingExtra(f"weights in {name} need the package gguf: pip install 'clearstory[formats]'") from None
    return lambda blocks: torch.from_numpy(dequantize(blocks.numpy(), GGMLQuantizationType(code)))


QUANTIZATION_TYPES: dict[int, QuantizationType] = {
    each.code: each
    for each in (
        QuantizationType(0, "F32", 1, 4, float_reader(torch.float32)),
        QuantizationType(1, "F16", 1, 2, float_reader(torch.float16)),
        QuantizationType(2, "Q4_0", 32, 18, group_reader(q4_0)),
        QuantizationType(3, "Q4_1", 32, 20, group_reader(q4_1)),
        QuantizationType(6, "Q5_0", 32, 22, group_reader(q5_0)),
        QuantizationType(7, "Q5_1", 32, 24, group_reader(q5_1)),
        QuantizationType(8, "Q8_0", 32, 34, group_reader(q8_0)),
        QuantizationType(10, "Q2_K", 256, 84),
        QuantizationType(11, "Q3_K", 256, 110),
        QuantizationType(12, "Q4_K", 256, 144, group_reader(q4_k)),
        QuantizationType(13, "Q5_K", 256, 176, group_reader(q5_k)),
        QuantizationType(14, "Q6_K", 256, 210, group_reader(q6_k)),
        QuantizationType(20, "IQ4_NL", 32, 18),
        QuantizationType(23, "IQ4_XS", 256, 136),
        QuantizationType(28, "F64", 1, 8, float_reader(torch.float64)),
        QuantizationType(30, "BF16", 1, 2, float_reader(torch.bfloat16)),
    )
}
"""By their code in a file."""

SUPPORTED_TYPES = ", ".join(each.name for each in QUANTIZATION_TYPES.values())


def rows_of_groups(read: Callable[[Blocks], BlockGroups], type: QuantizationType) -> Callable[[Tensor], IntegerGroups]:
    """From rows of blocks, (O, bytes), to groups for the kernels: in int4 the integers are from 0 to 15, and the offset
    is that of the integer 8.
    """
    precision: Literal["int4", "int8"] = "int4" if type.name in FOUR_BITS else "int8"

    def groups(rows: UInt8[Tensor, "O K"]) -> IntegerGroups:
        integers, scale, offset = read(rows.view(-1, type.block_bytes))
        offset = torch.zeros_like(scale) if offset is None else offset
        if precision == "int4":
            signed = integers.dtype == torch.int8
            integers, offset = (integers + 8, offset) if signed else (integers, offset + 8 * scale)
            integers = integers.float()
        count = len(rows)
        return IntegerGroups(precision, integers.reshape(count, -1), scale.view(count, -1), offset.view(count, -1))

    return groups


FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")


def block_format(code: int, read: Callable[[Blocks], BlockGroups]) -> BlockFormat:
    """One format in which weights can stay in memory."""
    type = QUANTIZATION_TYPES[code]
    precision: Literal["int4", "int8"] = "int4" if type.name in FOUR_BITS else "int8"

    def dequantize(rows: Tensor) -> Tensor:
        return type.dequantize(rows.flatten(), (len(rows), -1))

    return BlockFormat(type.name, dequantize, rows_of_groups(read, type), precision)


BLOCK_FORMATS: dict[str, BlockFormat] = {
    each.name: each
    for each in (
        block_format(2, q4_0),
        block_format(3, q4_1),
        block_format(6, q5_0),
        block_format(7, q5_1),
        block_format(8, q8_0),
        block_format(12, q4_k),
        block_format(13, q5_k),
    )
}
"""Formats in which weights can stay in memory, by name: those with groups of 32."""


def block_scales(raw: UInt8[Tensor, "B"], type: QuantizationType) -> Float[Tensor, "N S"]:
    """The scales, and the offsets where there are any, of all blocks: the float16 that they begin with."""
    count = 1 if type.name in ("Q4_0", "Q5_0", "Q8_0") else 2
    return as_float16(raw.view(-1, type.block_bytes)[:, : 2 * count])
