"""Kernels: thin wrappers of private PyTorch operators, which are used nowhere else.

Each library has a function that says whether its operators exist in this build and on this processor.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Optional, cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from clearstory.models.matmul.quantization import quantize_rows

# oneDNN, fp32: a second implementation beside `F.linear`, which calls the BLAS that torch was built with (MKL on x86).


def has_onednn() -> bool:
    """Whether oneDNN's linear layer exists in this build."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]  # torch's


def onednn_linear(x: Float[Tensor, "*D I"], weight: Float[Tensor, "O I"], bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, (..., O), without a gradient. The weight is plain, in any strides, or packed by `onednn_pack`."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], ""))


def onednn_pack(weight: Float[Tensor, "O I"], rows: int) -> Tensor:
    """A weight in oneDNN's blocks, as it chooses them for inputs of so many rows; other numbers of rows work too."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight.default(weight, rows))


# FBGEMM, weights in fp16: inputs, sums and outputs are fp32.


def has_fp16_weights() -> bool:
    """Whether FBGEMM's kernels for fp16 weights exist here (they need AVX2)."""
    return has_fbgemm() and hasattr(torch.ops.aten, "fbgemm_linear_fp16_weight_fp32_activation")


def pack_fp16_weight(weight: Float[Tensor, "O I"]) -> Tensor:
    """fp32 weights rounded to fp16 and packed, for `linear_fp16_weight`."""
    with warnings.catch_warnings():
        # torch warns at the first call of each; linear_dynamic_fp16 has the same kernel, and 10 µs more a call.
        warnings.filterwarnings("ignore", "fbgemm_.* is deprecated", UserWarning)
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight.contiguous())
        torch.fbgemm_linear_fp16_weight_fp32_activation(
            torch.zeros(1, weight.shape[1]), packed, torch.zeros(len(weight))
        )
    return packed


def linear_fp16_weight(x: Float[Tensor, "*D I"], packed: Tensor, bias: Tensor) -> Float[Tensor, "*D O"]:
    """x Wᵀ + b, fp32, for x of two dimensions or more. A row of the output does not depend on the other rows."""
    return cast(Tensor, torch.ops.aten.fbgemm_linear_fp16_weight_fp32_activation.default(x, packed, bias))


# FBGEMM, weights in int8: inputs are rounded to 8 bits with a given scale, sums are int32.


def has_int8_weights() -> bool:
    """Whether FBGEMM's kernels for 8-bit integers exist here."""
    return has_fbgemm() and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")


if TYPE_CHECKING:
    Int8Weight = Any
else:
    Int8Weight = torch.classes.quantized.LinearPackedParamsBase
"""A packed matrix of 8-bit integers."""


def pack_int8_weight(weight: Float[Tensor, "O I"], columns: Float[Tensor, "I"] | None, steps: int) -> Int8Weight:
    """Weights, over `columns`, rounded to a 127th of the largest in each row, and packed, for `linear_int8_weight`."""
    integers, scales = quantize_rows(weight, columns)
    with warnings.catch_warnings():
        # torch deprecates quantized tensors and has nothing yet that is as fast on a CPU.
        warnings.simplefilter("ignore", UserWarning)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(integers, scales.double() / steps, zeros, 0)
        return torch.ops.quantized.linear_prepack(quantized, None)


def linear_int8_weight(
    x: Tensor,
    packed: Int8Weight,
    bias: Optional[Tensor],  # noqa: UP045  # TorchScript reads it
    columns: Optional[Tensor],  # noqa: UP045
    steps: int,
    planes: Tensor,
) -> Tensor:
    """(x · columns) Wᵀ + b, (N, I) to (N, O), fp32: only the weights are rounded. A row does not depend on the others.

    The kernel takes integers from -steps to steps. So each row is divided by its largest magnitude and given as two
    rows, which cost little more than one where reading the weights takes the time: the nearest integers, and what they
    leave in steps of a power of two, so that the sum of the two is rounded once. See `int8_planes`.
    """
    if columns is not None:
        x = x * columns
    largest = x.abs().amax(-1, keepdim=True).add_(1e-30)
    both = x * (planes / largest)
    fine = 2 * steps + 2
    torch.sub(both[1], both[0].round(), alpha=fine, out=both[1])
    rows = both.view(-1, x.size(1))
    out: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(rows, 1.0, steps + 1, packed)
    first, second = out.chunk(2)
    out = first.add_(second, alpha=1 / fine).mul_(largest)
    return out if bias is None else out.add_(bias)


def int8_planes(steps: int) -> Float[Tensor, "2 1 1"]:
    """What a row over its largest magnitude is multiplied with, for the coarse and the fine integers."""
    return torch.tensor([1.0, 2 * steps + 2]).mul_(steps).view(2, 1, 1)


@cache
def scripted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function in TorchScript where this torch still has it: the same operators, without Python's time for each.

    At one row, `linear_int8_weight` takes 30 µs in place of 52, for a matrix of 576 × 1536 that is read in 20.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return cast("Callable[..., Tensor]", torch.jit.script(inspect.unwrap(function)))
        except (AttributeError, RuntimeError):
            return function


# ATen, weights in int4: groups of consecutive inputs have a scale and an offset, bf16.


def has_int4_weights() -> bool:
    """Whether ATen's kernels for 4-bit integers exist here."""
    return hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")


def pack_int4_weight(integers: Shaped[Tensor, "O I"]) -> Tensor:
    """Integers 0 to 15 packed in fours, for `linear_int4_weight`. O must be a multiple of 16, I of 2."""
    return cast(Tensor, torch.ops.aten._convert_weight_to_int4pack_for_cpu.default(integers.int(), 1))


def linear_int4_weight(x: Tensor, packed: Tensor, group: int, scales: Float[Tensor, "G O 2"]) -> Tensor:
    """x Wᵀ in bf16 for W = (integer - 8) · scale + offset, the two of each `group` inputs in `scales`."""
    return cast(Tensor, torch.ops.aten._weight_int4pack_mm_for_cpu.default(x, packed, group, scales))


def has_fbgemm() -> bool:
    """Whether this build and processor have FBGEMM."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def scale_kept(x: Float[Tensor, "*D"], kept: Bool[Tensor, "*D"], scale: float) -> Float[Tensor, "*D"]:
    """x times the scale where it is kept, else 0: both passes of dropout, in one pass over memory."""
    return cast(Tensor, torch.ops.aten.native_dropout_backward.default(x, kept, scale))


def is_transformed() -> bool:
    """Whether a transform of `torch.func` is active: its tensors stand for batches or tangents."""
    return torch._C._are_functorch_transforms_active()
