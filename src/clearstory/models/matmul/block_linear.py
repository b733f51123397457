"""Linear layers whose weights stay in the quantized blocks of a file until they are packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


@dataclass(frozen=True)
class IntegerGroups:
    """A matrix as (integer - zero) · scale + offset, with a scale and an offset for each group of 32 inputs.

    Args:
        precision: int4, with integers from 0 to 15 and 8 for zero, or int8, from -127 to 127.
        integers: (O, I).
        scale: (O, groups).
        offset: (O, groups).
    """

    precision: Literal["int4", "int8"]
    integers: Tensor
    scale: Tensor
    offset: Tensor

    @property
    def zero(self) -> int:
        """The integer that stands for the offset alone."""
        return 8 if self.precision == "int4" else 0


@dataclass(frozen=True)
class BlockFormat:
    """One format of blocks.

    Args:
        name: its name, as Q4_1.
        dequantize: from rows of blocks, (O, bytes), to numbers, (O, I).
        groups: from rows of blocks to the same numbers as groups of integers.
        precision: that of the integers.
    """

    name: str
    dequantize: Callable[[Tensor], Tensor]
    groups: Callable[[Tensor], IntegerGroups]
    precision: Literal["int4", "int8"]


class BlockQuantizedLinear(nn.Linear):
    """A linear layer with a block-quantized weight, which is dequantized at each access."""

    def __init__(
        self, blocks: UInt8[Tensor, "O K"], format: BlockFormat, in_features: int, bias: Tensor | None
    ) -> None:
        nn.Module.__init__(self)
        self.blocks, self.format = blocks, format
        self.in_features, self.out_features = in_features, len(blocks)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    @property
    def weight(self) -> Float[Tensor, "O I"]:  # type: ignore[override]  # a parameter in nn.Linear
        """The numbers, (O, I), fp32: a new tensor at each access."""
        return self.format.dequantize(self.blocks)


def joined_groups(linears: list[BlockQuantizedLinear]) -> IntegerGroups | None:
    """The groups of several layers of one input, joined; None if their precisions differ."""
    if len({each.format.precision for each in linears}) != 1:
        return None
    parts = [each.format.groups(each.blocks) for each in linears]
    if len(parts) == 1:
        return parts[0]
    joined = (torch.cat(each) for each in zip(*((p.integers, p.scale, p.offset) for p in parts), strict=True))
    return IntegerGroups(linears[0].format.precision, *joined)
