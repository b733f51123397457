"""GGUF number formats: how weights are stored, and their values in float32.

Quantized formats store blocks of 32 or 256 numbers of a row: small integers with a scale for each block, and an offset
in asymmetric formats. The common formats are dequantized here in a few torch operations, six times as fast as by the
package `gguf`; the others by that package, which is also the reference in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clearstory.errors import MissingExtra
from clearstory.models.matmul.block_linear import BlockFormat, IntegerGroups

Blocks = UInt8[Tensor, "N K"]


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


def read_q4_0(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """Q4_0: a scale and 32 integers from -8 to 7: the low halves of 16 bytes, then the high halves."""
    scale = as_float16(blocks[:, :2])
    return unpack_nibbles(blocks[:, 2:]).sub_(8).mul_(scale)


def read_q4_1(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """Q4_1: a scale, an offset and 32 integers from 0 to 15."""
    scale, offset = as_float16(blocks[:, :2]), as_float16(blocks[:, 2:4])
    return unpack_nibbles(blocks[:, 4:]).mul_(scale).add_(offset)


def read_q8_0(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """Q8_0: a scale and 32 integers from -128 to 127."""
    return blocks[:, 2:].view(torch.int8).float().mul_(as_float16(blocks[:, :2]))


def unpack_nibbles(packed: UInt8[Tensor, "N 16"]) -> Float[Tensor, "N 32"]:
    """Integers from 0 to 15: the low four bits of each byte, then the high four bits. Eight bytes are masked at a
    time.
    """
    words = packed.contiguous().view(torch.int64)
    return torch.cat((words & LOW_NIBBLES, (words >> 4) & LOW_NIBBLES), 1).view(torch.uint8).float()


LOW_NIBBLES = 0x0F0F0F0F0F0F0F0F


def as_float16(two_bytes: UInt8[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
    """Two bytes as a float16, converted to float32."""
    return two_bytes.contiguous().view(torch.float16).float()


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
        QuantizationType(2, "Q4_0", 32, 18, read_q4_0),
        QuantizationType(3, "Q4_1", 32, 20, read_q4_1),
        QuantizationType(6, "Q5_0", 32, 22),
        QuantizationType(7, "Q5_1", 32, 24),
        QuantizationType(8, "Q8_0", 32, 34, read_q8_0),
        QuantizationType(10, "Q2_K", 256, 84),
        QuantizationType(11, "Q3_K", 256, 110),
        QuantizationType(12, "Q4_K", 256, 144),
        QuantizationType(13, "Q5_K", 256, 176),
        QuantizationType(14, "Q6_K", 256, 210),
        QuantizationType(20, "IQ4_NL", 32, 18),
        QuantizationType(23, "IQ4_XS", 256, 136),
        QuantizationType(28, "F64", 1, 8, float_reader(torch.float64)),
        QuantizationType(30, "BF16", 1, 2, float_reader(torch.bfloat16)),
    )
}
"""By their code in a file."""

SUPPORTED_TYPES = ", ".join(each.name for each in QUANTIZATION_TYPES.values())


def q4_0_groups(rows: UInt8[Tensor, "O K"]) -> IntegerGroups:
    """Q4_0 as groups: (integer - 8) · scale."""
    blocks = rows.view(-1, 18)
    scale = as_float16(blocks[:, :2]).view(len(rows), -1)
    return IntegerGroups("int4", unpack_nibbles(blocks[:, 2:]).view(len(rows), -1), scale, torch.zeros_like(scale))


def q4_1_groups(rows: UInt8[Tensor, "O K"]) -> IntegerGroups:
    """Q4_1 as groups: integer · scale + least = (integer - 8) · scale + (least + 8 · scale)."""
    blocks = rows.view(-1, 20)
    scale, least = (as_float16(blocks[:, at : at + 2]).view(len(rows), -1) for at in (0, 2))
    return IntegerGroups("int4", unpack_nibbles(blocks[:, 4:]).view(len(rows), -1), scale, least + 8 * scale)


def q8_0_groups(rows: UInt8[Tensor, "O K"]) -> IntegerGroups:
    """Q8_0 as groups: integer · scale."""
    blocks = rows.view(-1, 34)
    scale = as_float16(blocks[:, :2]).view(len(rows), -1)
    return IntegerGroups("int8", blocks[:, 2:].view(torch.int8).reshape(len(rows), -1), scale, torch.zeros_like(scale))


def rows_reader(type: QuantizationType) -> Callable[[Tensor], Tensor]:
    """From rows of blocks, (O, bytes), to numbers, (O, I)."""
    return lambda rows: type.dequantize(rows.flatten(), (len(rows), -1))


BLOCK_FORMATS: dict[str, BlockFormat] = {
    "Q4_0": BlockFormat("Q4_0", rows_reader(QUANTIZATION_TYPES[2]), q4_0_groups, "int4"),
    "Q4_1": BlockFormat("Q4_1", rows_reader(QUANTIZATION_TYPES[3]), q4_1_groups, "int4"),
    "Q8_0": BlockFormat("Q8_0", rows_reader(QUANTIZATION_TYPES[8]), q8_0_groups, "int8"),
}
"""Formats in which weights can stay in memory, by name."""


def block_format(row_bytes: int, numbers: int) -> BlockFormat:
    """The format of rows of so many bytes and numbers: the three take 18, 20 and 34 bytes for 32 numbers."""
    by_bytes = {each.block_bytes: each.name for each in QUANTIZATION_TYPES.values() if each.name in BLOCK_FORMATS}
    return BLOCK_FORMATS[by_bytes[row_bytes * 32 // numbers]]


def block_scales(raw: UInt8[Tensor, "B"], type: QuantizationType) -> Float[Tensor, "N 1"]:
    """The scales, and the offsets where there are any, of all blocks."""
    blocks = raw.view(-1, type.block_bytes)
    return (
        as_float16(blocks[:, :2])
        if type.name != "Q4_1"
        else torch.cat((as_float16(blocks[:, :2]), as_float16(blocks[:, 2:4])))
    )
