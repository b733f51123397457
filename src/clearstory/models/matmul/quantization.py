"""Quantization of constant weights: to int8 with a scale for each output, to int4 with a scale and an offset for each
32 inputs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from clearstory.models.matmul.block_linear import IntegerGroups


def fits_fp16(weight: Tensor) -> bool:
    """Whether fp16 holds a matrix: below 65,504, and not so small that it has fewer digits."""
    largest = float(weight.abs().max())
    return largest == 0 or 2**-8 < largest < 65504


def quantize_rows(
    weight: Float[Tensor, "O I"], columns: Float[Tensor, "I"] | None
) -> tuple[Int8[Tensor, "O I"], Float[Tensor, "O"]]:
    """Weights, over `columns`, as integers times a 127th of the largest in each row: integers and scales."""
    integers = torch.empty(weight.shape, dtype=torch.int8)
    scales = weight.new_empty(len(weight))
    for start in range(0, len(weight), PART):
        rows = slice(start, start + PART)
        part = weight[rows] if columns is None else weight[rows] / columns
        scales[rows] = (part.abs().amax(1) / 127).clamp_(min=1e-30)
        integers[rows] = (part / scales[rows, None]).round_()
    return integers, scales


PART = 2048
"""Rows that are rounded at a time, so that the temporary memory of a large matrix is small."""


def column_factors_of_int8(weight: Float[Tensor, "O I"]) -> Float[Tensor, "I"] | None:
    """What columns are divided by before they are rounded to int8; None if it would lose nothing to leave them."""
    columns = column_magnitudes(weight, 0.5)
    # Products within a factor of two of each other lose nothing in 8 bits.
    return None if bool((columns.log2().abs() <= 1).all()) else columns


def column_magnitudes(weight: Float[Tensor, "O I"], power: float) -> Float[Tensor, "I"]:
    """The norm of each column over their median, to this power: what columns are divided by, and inputs multiplied.

    Where an input is large and its weights small, as with outliers of a residual stream, products then have a like
    size, and rounding the divided weights costs each of them alike. In int8 the root is best: SmolLM2 loses 0.08 % of
    its bits, with the first power 0.32 %, with none 0.11 %, where outliers of 100 cost 0.24 %. In int4 0.75 is.
    """
    magnitudes = torch.linalg.vector_norm(weight, dim=0)
    factors: Tensor = (magnitudes / magnitudes.median()).nan_to_num_(1).clamp_(2**-16, 2**16).pow_(power)
    return factors


GROUP = 32
"""Inputs that share a scale and an offset in int4."""

SHRINKS = (1.0, 0.92, 0.84)
"""Spans that are tried for a group, as a share of that from its least to its largest weight."""


def quantize_groups(weight: Float[Tensor, "O I"], dtype: torch.dtype) -> IntegerGroups:
    """The groups of 32 in int4 of least square error, with scales and offsets that fp16 or bf16 holds.

    Of each span in `SHRINKS` about the middle of a group, the one of least error is taken: a few large weights are cut
    off where the others gain more.
    """
    groups = weight.view(len(weight), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    least_scale = 1e-7 if dtype == torch.float16 else 1e-30  # fp16 has no smaller numbers
    least = torch.full_like(low, float("inf"))
    best = IntegerGroups("int4", torch.zeros_like(groups), torch.ones_like(low), torch.zeros_like(low))
    for shrink in SHRINKS:
        scale = ((high - low) * (shrink / 15)).clamp_(min=least_scale).to(dtype).float()
        offset = ((high + low) / 2 + scale / 2).to(dtype).float()
        integers = ((groups - offset) / scale + 8).round_().clamp_(0, 15)
        error = ((integers - 8) * scale + offset - groups).square_().sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best = IntegerGroups(
            "int4",
            torch.where(better, integers, best.integers),
            torch.where(better, scale, best.scale),
            torch.where(better, offset, best.offset),
        )
    return IntegerGroups("int4", best.integers.view_as(weight), best.scale.squeeze(-1), best.offset.squeeze(-1))
