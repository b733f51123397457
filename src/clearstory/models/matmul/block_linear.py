"""Linear layers whose weights stay in the blocks of small integers that a file holds, until they are packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


@dataclass(frozen=True)
class Int4Groups:
    """A matrix as (integer - 8) · scale + offset, with a scale and an offset for each group of inputs.

    Args:
        integers: from 0 to 15, (O, I).
        scale: (O, groups).
        offset: (O, groups).
    """

    integers: Tensor
    scale: Tensor
    offset: Tensor


@dataclass(frozen=True)
class BlockFormat:
    """One format of blocks.

    Args:
        name: its name, as Q4_1.
        dequantize: from rows of blocks, (O, bytes), to numbers, (O, I).
        int4_groups: from rows of blocks to the same numbers as groups of 32; None for formats that are not of 4 bits.
    """

    name: str
    dequantize: Callable[[Tensor], Tensor]
    int4_groups: Callable[[Tensor], Int4Groups] | None = None


class BlockQuantizedLinear(nn.Linear):
    """A linear layer whose weight is in blocks, and dequantized at each access."""

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


def joined_int4_groups(linears: list[BlockQuantizedLinear]) -> Int4Groups | None:
    """The groups of several layers of one input, joined; None if one is in another format than 4 bits."""
    parts = [None if each.format.int4_groups is None else each.format.int4_groups(each.blocks) for each in linears]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    return Int4Groups(
        *(torch.cat(each) for each in zip(*((p.integers, p.scale, p.offset) for p in whole), strict=True))
    )
