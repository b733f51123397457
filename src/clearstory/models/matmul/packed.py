"""Packed weights: linear layers with constant weights, rounded to one precision and packed for a kernel.

    fp32   nothing is rounded
    bf16   weights, inputs and outputs are rounded
    fp16   weights alone are rounded; inputs and sums are fp32
    int8   weights, with a scale for each output; inputs are rounded to 15 bits
    int4   weights, with a scale and an offset for each 32 inputs; inputs as in int8

`NativeLinear` computes all but bf16 by the compiled kernels, where there are any; a row of its output does not depend
on the other rows of the batch. The other classes have PyTorch's kernels: oneDNN's for fp32, where a row may depend on
the batch in its last bits; FBGEMM's for fp16 and int8, with inputs of 13 bits in int8 where the processor has no VNNI;
ATen's for int4, with scales, inputs and outputs in bf16. Bits per byte that each precision costs are measured by
benchmarks/precision.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.matmul import kernels
from clearstory.models.matmul.block_linear import BlockQuantizedLinear, IntegerGroups, joined_groups
from clearstory.models.matmul.quantization import (
    GROUP,
    column_factors_of_int8,
    column_magnitudes,
    fits_fp16,
    quantize_groups,
    quantize_rows,
)
from clearstory.models.native.library import load_library
from clearstory.models.native.linear import (
    BLOCK_OUTS,
    FP16,
    FP32,
    INT4_GROUPS,
    INT8,
    INT8_GROUPS,
    NativeMatrix,
    float_blocks,
    group_blocks,
)
from clearstory.models.native.panels import PanelMatrix, PanelPrecision
from clearstory.models.precision import PackedPrecision


def pack_linear(linears: Sequence[nn.Linear], precision: PackedPrecision) -> PackedLinear:
    """A module that computes linear layers of one input, (..., in) -> (..., sum of outs).

    Raises CannotDo if this build of torch has no such kernels.
    """
    if not is_available(precision):
        raise CannotDo(
            f"this build of torch has no {precision} kernels for this processor; open the model with --precision fp32"
        )
    if (native := native_linear(linears, precision)) is not None:
        return native
    in_blocks = [each for each in linears if isinstance(each, BlockQuantizedLinear)]
    groups = joined_groups(in_blocks) if precision == "int4" and len(in_blocks) == len(linears) else None
    if groups is not None and groups.precision == "int4":
        return LinearInt4.from_groups(groups, joined_bias(linears))
    weight = joined_weight(linears)
    if precision == "fp16" and not fits_fp16(weight):
        precision = "fp32"
    return PACKED[precision](weight, joined_bias(linears))


def joined_weight(linears: Sequence[nn.Linear]) -> Float[Tensor, "O I"]:
    """The weights of all layers, fp32."""
    weight = linears[0].weight.data if len(linears) == 1 else torch.cat([each.weight.data for each in linears])
    return weight.float()


def joined_bias(linears: Sequence[nn.Linear]) -> Float[Tensor, "O"] | None:
    """The biases of all layers, zeros for those without; None if none has any."""
    if all(each.bias is None for each in linears):
        return None
    parts = [torch.zeros(each.out_features) if each.bias is None else each.bias.data.float() for each in linears]
    return torch.cat(parts)


def is_available(precision: PackedPrecision) -> bool:
    """Whether this machine has the kernels of a precision."""
    if precision != "bf16" and load_library() is not None:
        return True
    available = {"fp16": kernels.has_fp16_weights, "int8": kernels.has_int8_weights, "int4": kernels.has_int4_weights}
    return available[precision]() if precision in available else True


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


class NativeLinear(PackedLinear):
    """A linear layer computed by the compiled kernels, whose rows do not depend on each other in any precision."""

    def __init__(self, precision: PackedPrecision, matrix: NativeMatrix, bias: Float[Tensor, "O"] | None) -> None:
        nn.Module.__init__(self)
        self.precision: PackedPrecision = precision
        self.matrix, self.bias = matrix, bias
        self.out_features, self.in_features = matrix.struct.outs, matrix.struct.ins

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        return self.matrix.multiply(x)


class PanelLinear(PackedLinear):
    """A linear layer for many rows at once, computed by the compiled kernels; rows do not depend on each other. In int8
    inputs are rounded to 8 bits.
    """

    def __init__(self, linears: Sequence[nn.Linear], precision: PanelPrecision) -> None:
        nn.Module.__init__(self)
        self.precision: PackedPrecision = precision
        self.bias = joined_bias(linears)
        self.matrix = PanelMatrix(joined_weight(linears), self.bias, precision)
        self.out_features, self.in_features = self.matrix.struct.outs, self.matrix.struct.ins

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of rows."""
        return self.matrix.multiply(x)


def native_linear(linears: Sequence[nn.Linear], precision: PackedPrecision) -> NativeLinear | None:
    """Linear layers of one input as one that the compiled kernels compute; None if there are no such kernels."""
    if precision == "bf16" or load_library() is None:
        return None
    bias = joined_bias(linears)
    in_blocks = [each for each in linears if isinstance(each, BlockQuantizedLinear)]
    groups = joined_groups(in_blocks) if precision in ("int4", "int8") and len(in_blocks) == len(linears) else None
    if groups is not None and groups.precision == precision:
        return NativeLinear(precision, groups_matrix(groups, None, bias), bias)
    weight = joined_weight(linears)
    if precision == "fp16" and not fits_fp16(weight):
        precision = "fp32"
    return NativeLinear(precision, NATIVE[precision](weight, bias), bias)


def float_matrix(weight: Float[Tensor, "O I"], bias: Tensor | None, kind: int, dtype: torch.dtype) -> NativeMatrix:
    """A matrix in fp32 or fp16."""
    return NativeMatrix(kind, tuple(weight.shape), float_blocks(weight, dtype), bias=bias)


def int8_matrix(weight: Float[Tensor, "O I"], bias: Tensor | None) -> NativeMatrix:
    """A matrix in int8 with a scale for each output."""
    columns = column_factors_of_int8(weight)
    integers, scales = quantize_rows(weight, columns)
    padded = F.pad(scales, (0, -len(scales) % BLOCK_OUTS))
    return NativeMatrix(INT8, tuple(weight.shape), float_blocks(integers, torch.int8), padded, columns, bias)


def int4_matrix(weight: Float[Tensor, "O I"], bias: Tensor | None) -> NativeMatrix:
    """A matrix in int4 with a scale and an offset for each 32 inputs."""
    columns = column_magnitudes(weight, 0.75)
    # fp16 holds scales from 6e-5 to 65,504 with all digits: a power of two brings the largest offset to its end.
    largest = float((weight.abs().amax(0) / columns).amax())
    columns *= math.ldexp(1.0, math.frexp(largest)[1] - 14)
    groups = quantize_groups(F.pad(weight / columns, (0, -weight.shape[1] % GROUP)), torch.float16)
    return groups_matrix(groups, columns, bias, weight.shape[1])


def groups_matrix(
    groups: IntegerGroups, columns: Tensor | None, bias: Tensor | None, in_features: int | None = None
) -> NativeMatrix:
    """A matrix in groups of integers: exactly the numbers of the groups where fp16 holds scales and offsets."""
    offset = groups.offset - groups.zero * groups.scale
    four_bits = groups.precision == "int4"
    blocks = group_blocks(groups.integers, groups.scale, offset, four_bits)
    shape = (len(groups.integers), in_features or groups.integers.shape[1])
    return NativeMatrix(INT4_GROUPS if four_bits else INT8_GROUPS, shape, blocks, columns=columns, bias=bias)


NATIVE: dict[PackedPrecision, Callable[[Tensor, Tensor | None], NativeMatrix]] = {
    "fp32": partial(float_matrix, kind=FP32, dtype=torch.float32),
    "fp16": partial(float_matrix, kind=FP16, dtype=torch.float16),
    "int8": int8_matrix,
    "int4": int4_matrix,
}


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
        # FBGEMM's kernels for AVX2 sum one, two and three rows in different orders: threes do not depend on others.
        missing = 0 if torch.backends.cpu.get_cpu_capability() == "AVX512" else -len(x) % 3
        if not missing:
            return kernels.linear_fp16_weight(x, self.packed, self.bias_or_zeros)
        return kernels.linear_fp16_weight(F.pad(x, (0, 0, 0, missing)), self.packed, self.bias_or_zeros)[: len(x)]


class LinearInt8(PackedLinear):
    """A linear layer with int8 weights and a scale for each output; inputs have 15 bits, 13 without VNNI."""

    precision = "int8"

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__(weight, bias)
        self.steps = int8_steps()
        self.columns = column_factors_of_int8(weight)
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
        self.pack(quantize_groups(F.pad(weight / self.columns, (0, self.padding)), torch.bfloat16))

    @classmethod
    def from_groups(cls, groups: IntegerGroups, bias: Float[Tensor, "O"] | None) -> LinearInt4:
        """A layer whose weights are in groups of 32 already: only scales and offsets are rounded, to bf16."""
        made = cls.__new__(cls)
        PackedLinear.__init__(made, groups.integers, bias)
        made.padding, made.columns = 0, None
        made.pack(groups)
        return made

    def pack(self, groups: IntegerGroups) -> None:
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


PACKED: dict[PackedPrecision, type[PackedLinear]] = {
    "fp32": LinearFp32,
    "fp16": LinearFp16,
    "bf16": LinearBf16,
    "int8": LinearInt8,
    "int4": LinearInt4,
}
