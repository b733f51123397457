"""Integers in GGUF's blocks: their layout in each quantized format, and the scales of its groups.

A block of 32 numbers has one scale. A block of 256 (the formats with K) has a scale for each 32 or 16 numbers, which is
an integer multiplied by the block's scale; asymmetric formats also have an offset of the same kind.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Blocks = UInt8[Tensor, "N K"]


class BlockGroups(NamedTuple):
    """Blocks as integer · scale + offset, with a scale and an offset (None: 0) for each group.

    integers are (N, groups, size of a group), scale and offset (N, groups), fp32.
    """

    integers: Tensor
    scale: Tensor
    offset: Tensor | None = None

    def numbers(self) -> Float[Tensor, "N K"]:
        """integer · scale + offset."""
        out = self.integers.float().mul_(self.scale.unsqueeze(-1))
        return (out if self.offset is None else out.add_(self.offset.unsqueeze(-1))).flatten(1)


def q4_0(blocks: Blocks) -> BlockGroups:
    """A scale and 32 integers from -8 to 7: the low halves of 16 bytes, then the high halves."""
    return BlockGroups((unpack_nibbles(blocks[:, 2:]).view(torch.int8) - 8).unsqueeze(1), as_float16(blocks[:, :2]))


def q4_1(blocks: Blocks) -> BlockGroups:
    """A scale, an offset and 32 integers from 0 to 15."""
    return BlockGroups(unpack_nibbles(blocks[:, 4:]).unsqueeze(1), *scale_and_offset(blocks))


def q5_0(blocks: Blocks) -> BlockGroups:
    """A scale and 32 integers from -16 to 15: their highest bits in four bytes, the others as in Q4_0."""
    integers = unpack_nibbles(blocks[:, 6:]) | fifth_bits(blocks[:, 2:6])
    return BlockGroups((integers.view(torch.int8) - 16).unsqueeze(1), as_float16(blocks[:, :2]))


def q5_1(blocks: Blocks) -> BlockGroups:
    """A scale, an offset and 32 integers from 0 to 31."""
    integers = unpack_nibbles(blocks[:, 8:]) | fifth_bits(blocks[:, 4:8])
    return BlockGroups(integers.unsqueeze(1), *scale_and_offset(blocks))


def q8_0(blocks: Blocks) -> BlockGroups:
    """A scale and 32 integers from -128 to 127."""
    return BlockGroups(blocks[:, 2:].view(torch.int8).unsqueeze(1), as_float16(blocks[:, :2]))


def q4_k(blocks: Blocks) -> BlockGroups:
    """Eight groups of integers from 0 to 15, each with a scale and an offset of 6 bits."""
    return BlockGroups(unpack_nibbles(blocks[:, 16:].reshape(-1, 32)).view(-1, 8, 32), *six_bit_scales(blocks))


def q5_k(blocks: Blocks) -> BlockGroups:
    """The same with integers from 0 to 31: bit g of 32 bytes is the highest one of group g."""
    low = unpack_nibbles(blocks[:, 48:].reshape(-1, 32)).view(-1, 8, 32)
    high = (blocks[:, 16:48].unsqueeze(1) >> BITS[:, None]) & 1
    return BlockGroups(low | high << 4, *six_bit_scales(blocks))


def q6_k(blocks: Blocks) -> BlockGroups:
    """Sixteen groups of 16 integers from -32 to 31, each with a scale of 8 bits: the low four bits of all, then the
    high two, for each half of the block.
    """
    low = unpack_nibbles(blocks[:, :128].reshape(-1, 64)).view(-1, 2, 4, 32)
    high = (blocks[:, 128:192].view(-1, 2, 1, 32) >> BITS[::2, None]) & 3
    integers = (low | high << 4).view(torch.int8) - 32
    scale = blocks[:, 192:208].view(torch.int8).float() * as_float16(blocks[:, 208:])
    return BlockGroups(integers.view(-1, 16, 16), scale)


BITS = torch.arange(8, dtype=torch.uint8)


def unpack_nibbles(packed: UInt8[Tensor, "N K"]) -> UInt8[Tensor, "N 2*K"]:
    """Integers from 0 to 15: the low four bits of each byte, then the high four bits. Eight bytes are masked at a
    time.
    """
    words = packed.contiguous().view(torch.int64)
    return torch.cat((words & LOW_NIBBLES, (words >> 4) & LOW_NIBBLES), 1).view(torch.uint8)


LOW_NIBBLES = 0x0F0F0F0F0F0F0F0F


def fifth_bits(packed: UInt8[Tensor, "N 4"]) -> UInt8[Tensor, "N 32"]:
    """The bits of four bytes, lowest first, each worth 16."""
    return ((packed.unsqueeze(-1) >> BITS) & 1).flatten(1) << 4


def as_float16(two_bytes: UInt8[Tensor, "N K"]) -> Float[Tensor, "N H"]:
    """Pairs of bytes as float16, converted to float32."""
    return two_bytes.contiguous().view(torch.float16).float()


def scale_and_offset(blocks: Blocks) -> tuple[Tensor, Tensor]:
    """The two float16 that a block begins with, (N, 1) each."""
    return as_float16(blocks[:, :2]), as_float16(blocks[:, 2:4])


def six_bit_scales(blocks: Blocks) -> tuple[Float[Tensor, "N 8"], Float[Tensor, "N 8"]]:
    """Scales and offsets of eight groups: twelve bytes hold two integers of 6 bits for each, and the block begins with
    the float16 that multiply them.

    Bytes 0 to 3 hold the scales of the first four groups, bytes 4 to 7 their offsets, bytes 8 to 11 the low four bits
    of the scales and offsets of the others, whose high two bits are those left over in the first eight bytes.
    """
    first, second, third = blocks[:, 4:16].chunk(3, 1)
    scale = torch.cat((first & 63, third & 15 | first >> 6 << 4), 1)
    offset = torch.cat((second & 63, third >> 4 | second >> 6 << 4), 1)
    d, least = scale_and_offset(blocks)
    return scale.float().mul_(d), offset.float().mul_(-least)
