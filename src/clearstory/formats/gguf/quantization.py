"""GGUF numbers: how a file writes its weights, and what they are in float32.

Quantised kinds hold blocks of 32 or 256 numbers of a row: small whole numbers, with a scale for each block (and where
they are not around zero, an offset). The common kinds are read here in a few passes of torch, six times as fast as the
`gguf` package reads them; the others by that package, which is also what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clearstory.errors import MissingExtra

Blocks = UInt8[Tensor, "N K"]


@dataclass(frozen=True)
class QuantizationType:
    """One way to write numbers: `block` of them in `bytes` bytes."""

    code: int
    name: str
    block: int
    bytes: int
    read: Callable[[Blocks], Tensor] | None = None

    def numbers(self, raw: UInt8[Tensor, "B"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
        """The numbers themselves, row after row. Raises MissingExtra for a kind that needs the package `gguf`."""
        blocks = raw.view(-1, self.bytes)
        read = self.read or by_package(self.code, self.name)
        return read(blocks).reshape(shape)


def q4_0(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """A scale, and 32 numbers from -8 to 7: the low halves of 16 bytes, then the high ones."""
    scale = as_halves(blocks[:, :2])
    return halves_of_bytes(blocks[:, 2:]).sub_(8).mul_(scale)


def q4_1(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """A scale and an offset, and 32 numbers from 0 to 15."""
    scale, least = as_halves(blocks[:, :2]), as_halves(blocks[:, 2:4])
    return halves_of_bytes(blocks[:, 4:]).mul_(scale).add_(least)


def q8_0(blocks: Blocks) -> Float[Tensor, "N 32"]:
    """A scale, and 32 numbers from -128 to 127."""
    return blocks[:, 2:].view(torch.int8).float().mul_(as_halves(blocks[:, :2]))


def halves_of_bytes(packed: UInt8[Tensor, "N 16"]) -> Float[Tensor, "N 32"]:
    """Numbers from 0 to 15: the lower four bits of each byte, then the upper ones. Eight bytes are masked at a time."""
    eight = packed.contiguous().view(torch.int64)
    return torch.cat((eight & EACH_LOW, (eight >> 4) & EACH_LOW), 1).view(torch.uint8).float()


EACH_LOW = 0x0F0F0F0F0F0F0F0F


def as_halves(two: UInt8[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
    """Two bytes as a number of 16 bits."""
    return two.contiguous().view(torch.float16).float()


def plain(dtype: torch.dtype) -> Callable[[Blocks], Tensor]:
    """Numbers as a processor knows them; wider than 16 bits, they stay mapped."""

    def read(blocks: Blocks) -> Tensor:
        numbers = blocks.view(dtype)
        return numbers.float() if dtype.itemsize == 2 else numbers

    return read


def by_package(code: int, name: str) -> Callable[[Blocks], Tensor]:
    """What the package `gguf` makes of a kind."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise MissingExtra(f"weights in {name} need the package gguf: pip install 'clearstory[formats]'") from None
    return lambda blocks: torch.from_numpy(dequantize(blocks.numpy(), GGMLQuantizationType(code)))


QUANTIZATION_TYPES: dict[int, QuantizationType] = {
    kind.code: kind
    for kind in (
        QuantizationType(0, "F32", 1, 4, plain(torch.float32)),
        QuantizationType(1, "F16", 1, 2, plain(torch.float16)),
        QuantizationType(2, "Q4_0", 32, 18, q4_0),
        QuantizationType(3, "Q4_1", 32, 20, q4_1),
        QuantizationType(6, "Q5_0", 32, 22),
        QuantizationType(7, "Q5_1", 32, 24),
        QuantizationType(8, "Q8_0", 32, 34, q8_0),
        QuantizationType(10, "Q2_K", 256, 84),
        QuantizationType(11, "Q3_K", 256, 110),
        QuantizationType(12, "Q4_K", 256, 144),
        QuantizationType(13, "Q5_K", 256, 176),
        QuantizationType(14, "Q6_K", 256, 210),
        QuantizationType(20, "IQ4_NL", 32, 18),
        QuantizationType(23, "IQ4_XS", 256, 136),
        QuantizationType(28, "F64", 1, 8, plain(torch.float64)),
        QuantizationType(30, "BF16", 1, 2, plain(torch.bfloat16)),
    )
}
"""By the code that a file says."""

SUPPORTED_TYPES = ", ".join(kind.name for kind in QUANTIZATION_TYPES.values())
