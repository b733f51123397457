"""Packed weights: linear layers whose weights do not change, rounded to a precision and packed for a kernel.

    fp32, bf16   oneDNN's blocks
    fp16         FBGEMM's panels; inputs and sums stay fp32
    int8         a scale for each output; inputs as two planes of 8 bits, so that only weights are rounded
    int4         a scale and an offset for each group of inputs

In fp16, int8 and int4 a row of the output does not depend on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.matmul import kernels
from clearstory.models.precision import PackedPrecision


def pack_linear(linears: Sequence[nn.Linear], precision: PackedPrecision) -> nn.Module:
    """A module that computes these linear layers of one input, (..., in) -> (..., sum of outs), fp32.

    Raises CannotDo where this build of torch has no such kernels.
    """
    check_available(precision)
    weight = torch.cat([each.weight.data.float() for each in linears]) if len(linears) > 1 else linears[0].weight.data
    return PACKED[precision](weight.float(), joined_bias(linears))


def joined_bias(linears: Sequence[nn.Linear]) -> Tensor | None:
    """The biases of all layers, zeros for those without; None if none has any."""
    if all(each.bias is None for each in linears):
        return None
    return torch.cat(
        [torch.zeros(each.out_features) if each.bias is None else each.bias.data.float() for each in linears]
    )


def check_available(precision: PackedPrecision) -> None:
    """Raises CannotDo where this build of torch has no kernels for a precision."""
    if not is_available(precision):
        raise CannotDo(
            f"this build of torch has no {precision} kernels for this processor; open the model without --precision"
        )


def is_available(precision: PackedPrecision) -> bool:
    """Whether this build of torch has kernels for a precision."""
    available = {"fp16": kernels.has_fp16_weights, "int8": kernels.has_int8_weights, "int4": kernels.has_int4_weights}
    return available[precision]() if precision in available else True


def choose_precision(batch_size: int) -> PackedPrecision:
    """The fastest of fp32, fp16 and bf16 for this many rows on this machine."""
    return "fp16" if is_available("fp16") else "fp32"


class LinearFp32(nn.Module):
    """A linear layer with weights in oneDNN's blocks."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.bias = bias
        self.packed = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 8) if self.packed else weight

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))


class LinearBf16(nn.Module):
    """A linear layer in bf16: inputs and outputs are rounded too."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.bfloat16()
        self.weight = weight.bfloat16()

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        return F.linear(x.bfloat16(), self.weight, self.bias).float()


class LinearFp16(nn.Module):
    """A linear layer with weights in fp16; inputs and sums are fp32."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.bias = torch.zeros(len(weight)) if bias is None else bias
        self.packed = kernels.pack_fp16_weight(weight)

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        return kernels.linear_fp16_weight(x if x.ndim > 1 else x[None], self.packed, self.bias).view(*x.shape[:-1], -1)


class LinearInt8(nn.Module):
    """A linear layer with weights in int8, a scale for each output.

    Each row of the input is divided by its largest magnitude and given as two planes of 8 bits in one product: the
    value rounded to 1/127, and what is left, times 254.
    """

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.bias = bias
        scales = (weight.abs().amax(1) / 127).clamp_(min=torch.finfo(torch.float32).tiny)
        self.packed = kernels.pack_int8_weight(weight, scales)

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        flat = x.reshape(-1, x.shape[-1]).float()
        rows = len(flat)
        largest = torch.linalg.vector_norm(flat, float("inf"), dim=-1, keepdim=True).clamp_(min=SMALLEST)
        unit = flat / largest
        high = torch.fake_quantize_per_tensor_affine(unit, 1 / 127, 0, -127, 127)
        planes = torch.cat((unit, (unit - high).mul_(254)))
        out = kernels.linear_int8_weight(planes, 1 / 127, self.packed)
        out = torch.add(out[:rows], out[rows:], alpha=1 / 254).mul_(largest)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


SMALLEST = 2.0**-100
"""Least magnitude that a row is divided by."""

GROUP = 32


class LinearInt4(nn.Module):
    """A linear layer with weights in int4, a scale and an offset for each group of 32 inputs."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        super().__init__()
        self.bias, self.outputs, self.inputs = bias, *weight.shape
        # The kernel takes outputs by 16; groups are filled up with inputs of 0.
        weight = F.pad(weight, (0, -self.inputs % GROUP, 0, -self.outputs % 16))
        groups = weight.view(len(weight), -1, GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp_(min=SMALLEST).bfloat16().float()
        offset = (low + 8 * scale).bfloat16().float()
        integers = ((groups - offset) / scale + 8).round_().clamp_(0, 15)
        self.packed = kernels.pack_int4_weight(integers.view_as(weight))
        self.scales = torch.cat((scale, offset), -1).transpose(0, 1).contiguous().bfloat16()

    def forward(self, x: Float[Tensor, "*D I"]) -> Float[Tensor, "*D O"]:
        """x Wᵀ + b."""
        flat = x.reshape(-1, x.shape[-1]).bfloat16()
        flat = F.pad(flat, (0, -self.inputs % GROUP)) if self.inputs % GROUP else flat
        out = kernels.linear_int4_weight(flat, self.packed, GROUP, self.scales)[:, : self.outputs].float()
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


PACKED: dict[PackedPrecision, type[nn.Module]] = {
    "fp32": LinearFp32,
    "fp16": LinearFp16,
    "bf16": LinearBf16,
    "int8": LinearInt8,
    "int4": LinearInt4,
}
