"""Packed weights: linear layers whose weights do not change, rounded to one precision and packed for a kernel.

    fp32   oneDNN's blocks
    bf16   inputs and outputs are rounded too
    fp16   weights alone are rounded; inputs and sums are fp32
    int8   weights alone are rounded, with a scale for each output; inputs have 15 bits
    int4   weights with a scale and an offset for each 32 inputs; inputs and outputs are bf16

In fp16, int8 and int4 a row of the output does not depend on the other rows of the batch. Bits per byte that each costs
are measured by benchmarks/precision.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.matmul import kernels
from clearstory.models.matmul.block_linear import BlockQuantizedLinear, Int4Groups, joined_int4_groups
from clearstory.models.precision import PackedPrecision


def pack_linear(linears: Sequence[nn.Linear], precision: PackedPrecision) -> PackedLinear:
    """A module that computes linear layers of one input, (..., in) -> (..., sum of outs).

    Raises CannotDo where this build of torch has no such kernels.
    """
    if not is_available(precision):
        raise CannotDo(
            f"this build of torch has no {precision} kernels for this processor; open the model with --precision fp32"
        )
    in_blocks = [each for each in linears if isinstance(each, BlockQuantizedLinear)]
    if precision == "int4" and len(in_blocks) == len(linears) and (groups := joined_int4_groups(in_blocks)):
        return LinearInt4.from_groups(groups, joined_bias(linears))
    weight = linears[0].weight.data if len(linears) == 1 else torch.cat([each.weight.data for each in linears])
    weight = weight.float()
    if precision == "fp16" and not fits_fp16(weight):
        precision = "fp32"
    return PACKED[precision](weight, joined_bias(linears))


def joined_bias(linears: Sequence[nn.Linear]) -> Float[Tensor, "O"] | None:
    """The biases of all layers, zeros for those without; None if none has any."""
    if all(each.bias is None for each in linears):
        return None
    parts = [torch.zeros(each.out_features) if each.bias is None else each.bias.data.float() for each in linears]
    return torch.cat(parts)


def is_available(precision: PackedPrecision) -> bool:
    """Whether this build of torch has the kernels of a precision."""
    available = {"fp16": kernels.has_fp16_weights, "int8": kernels.has_int8_weights, "int4": kernels.has_int4_weights}
    return available[precision]() if precision in available else True


def fits_fp16(weight: Tensor) -> bool:
    """Whether fp16 holds a matrix: below 65,504, and not so small that it has fewer digits."""
    largest = float(weight.abs().max())
    return largest == 0 or 2**-8 < largest < 65504


class PackedLinear(nn.Module):
    """A linear layer with packed weights: (..., in) -> (..., out) in the dtype of the input."""

    precision: PackedPrecision

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        rows = x.reshape(-1, self.in_features)
        out = self.multiply(rows) if x.dtype == torch.float32 else self.multiply(rows.float()).to(x.dtype)
        return out.view(*x.shape[:-1], self.out_features)

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows, fp32."""
        raise NotImplementedError


class LinearFp32(PackedLinear):
    """A linear layer with fp32 weights in oneDNN's blocks."""

    precision = "fp32"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, bias)
        # Blocks packed for eight rows serve one to thirty-two well.
        self.weight = kernels.onednn_pack(weight, 8) if kernels.has_onednn() else weight

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        linear = kernels.onednn_linear if kernels.has_onednn() else F.linear
        return linear(x, self.weight, self.bias)


class LinearBf16(PackedLinear):
    """A linear layer in bf16: weights, inputs and outputs."""

    precision = "bf16"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, None if bias is None else bias.bfloat16())
        self.weight = weight.bfloat16()

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        return F.linear(x.bfloat16(), self.weight, self.bias).float()


class LinearFp16(PackedLinear):
    """A linear layer with fp16 weights; inputs and sums are fp32."""

    precision = "fp16"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, bias)
        self.bias_or_zeros = torch.zeros(len(weight)) if bias is None else bias
        self.packed = kernels.pack_fp16_weight(weight)

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        return kernels.linear_fp16_weight(x, self.packed, self.bias_or_zeros)


class LinearInt8(PackedLinear):
    """A linear layer with int8 weights and a scale for each output; inputs have 15 bits, 13 without VNNI."""

    precision = "int8"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, bias)
        self.steps = int8_steps()
        columns = column_magnitudes(weight, 0.5)
        # Products within a factor of two of each other lose nothing in 8 bits.
        self.columns = None if bool((columns.log2().abs() <= 1).all()) else columns
        self.packed = kernels.pack_int8_weight(weight, self.columns, self.steps)
        self.planes = kernels.int8_planes(self.steps)
        self.product = kernels.scripted(kernels.linear_int8_weight)

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        return self.product(x, self.packed, self.bias, self.columns, self.steps, self.planes)


def int8_steps() -> int:
    """The largest integer that the kernel may be given: without VNNI it sums pairs of products in 16 bits, which only
    7-bit inputs do not overflow.
    """
    return 127 if torch.cpu._is_vnni_supported() else 63


class LinearInt4(PackedLinear):
    """A linear layer with int4 weights, a scale and an offset for each 32 inputs; inputs and outputs are bf16."""

    precision = "int4"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, bias)
        self.padding = -self.in_features % GROUP
        self.columns: Tensor | None = column_magnitudes(weight, 0.75)
        self.pack(quantize_groups(F.pad(weight / self.columns, (0, self.padding))))

    @classmethod
    def from_groups(cls, groups: Int4Groups, bias: Float[Tensor, "O"] | None) -> LinearInt4:
        """A layer whose weights are in groups of 32 already: only scales and offsets are rounded, to bf16."""
        made = cls.__new__(cls)
        PackedLinear.__init__(made, groups.integers, bias)
        made.padding, made.columns = 0, None
        made.pack(groups)
        return made

    def pack(self, groups: Int4Groups) -> None:
        """Pack groups for the kernel, which takes outputs by 16."""
        missing = (0, 0, 0, -self.out_features % 16)
        self.packed = kernels.pack_int4_weight(F.pad(groups.integers, missing))
        scales = torch.stack((F.pad(groups.scale, missing), F.pad(groups.offset, missing)), -1)
        self.scales = scales.transpose(0, 1).bfloat16().contiguous()

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        if self.columns is not None:
            x = x * self.columns
        rows = (F.pad(x, (0, self.padding)) if self.padding else x).bfloat16()
        out = kernels.linear_int4_weight(rows, self.packed, GROUP, self.scales)[:, : self.out_features].float()
        return out if self.bias is None else out.add_(self.bias)


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


def quantize_groups(weight: Float[Tensor, "O I"]) -> Int4Groups:
    """The groups of 32 of least square error, with scales and offsets that bf16 holds.

    Of each span in `SHRINKS` about the middle of a group, the one of least error is taken: a few large weights are cut
    off where the others gain more.
    """
    groups = weight.view(len(weight), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    least = torch.full_like(low, float("inf"))
    best = Int4Groups(torch.zeros_like(groups), torch.ones_like(low), torch.zeros_like(low))
    for shrink in SHRINKS:
        scale = ((high - low) * (shrink / 15)).clamp_(min=1e-30).bfloat16().float()
        offset = ((high + low) / 2 + scale / 2).bfloat16().float()
        integers = ((groups - offset) / scale + 8).round_().clamp_(0, 15)
        error = ((integers - 8) * scale + offset - groups).square_().sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best = Int4Groups(
            torch.where(better, integers, best.integers),
            torch.where(better, scale, best.scale),
            torch.where(better, offset, best.offset),
        )
    return Int4Groups(best.integers.view_as(weight), best.scale.squeeze(-1), best.offset.squeeze(-1))


PACKED: dict[PackedPrecision, type[PackedLinear]] = {
    "fp32": LinearFp32,
    "fp16": LinearFp16,
    "bf16": LinearBf16,
    "int8": LinearInt8,
    "int4": LinearInt4,
}
