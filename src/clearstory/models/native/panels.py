"""Constant weight matrices in panels, for products with many rows at once by the compiled kernels."""

from __future__ import annotations

import ctypes
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.matmul.quantization import column_factors_of_int8, fits_fp16, quantize_rows
from clearstory.models.native.library import PanelMatrixStruct, load_library

PANELS_FP32, PANELS_INT8, PANELS_FP16 = range(3)
"""Types of weights; panel.h."""

PANEL, QUAD = 32, 4
"""Outputs per panel, and adjacent inputs in int8; panel.h."""

PanelPrecision = Literal["fp32", "fp16", "int8"]


class PanelMatrix:
    """A constant matrix as the kernels read it, with the tensors that hold its numbers.

    fp32 rounds nothing, fp16 the weights, unless it does not hold them. int8 rounds weights, with a scale for each
    output, and inputs to 8 bits, with a scale and a zero point for each row.
    """

    def __init__(
        self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None, precision: PanelPrecision
    ) -> None:
        missing = -len(weight) % PANEL
        bias = None if bias is None else F.pad(bias.float(), (0, missing))
        parts: tuple[Tensor | None, ...]
        if precision == "fp16" and fits_fp16(weight):
            kind, parts = PANELS_FP16, (in_panels(weight.half(), 1), None, None, None, bias)
        elif precision != "int8":
            kind, parts = PANELS_FP32, (in_panels(weight.float(), 1), None, None, None, bias)
        else:
            columns = column_factors_of_int8(weight)
            integers, scales = quantize_rows(weight, columns)
            sums = F.pad(integers.sum(1, dtype=torch.int32).float(), (0, missing))
            kind, parts = PANELS_INT8, (in_panels(integers, QUAD), F.pad(scales, (0, missing)), sums, columns, bias)
        self.tensors = parts
        self.struct = PanelMatrixStruct(kind, *weight.shape, *(None if x is None else x.data_ptr() for x in parts))

    def multiply(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """x Wᵀ + b of fp32 rows."""
        library = load_library()
        assert library is not None, "native kernels are asked for first"
        x = x.contiguous()
        out = x.new_empty(len(x), self.struct.outs)
        shape = len(x), x.shape[1]
        if library.panel_product(
            ctypes.byref(self.struct), x.data_ptr(), *shape, out.data_ptr(), out.shape[1], -1, torch.get_num_threads()
        ):
            raise MemoryError(f"a product of {len(x)} rows does not fit into memory")
        return out

    def top(self, x: Float[Tensor, "N I"], count: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
        """Log-probabilities of the `count` most likely outputs of each row in float64, in descending order, and ids."""
        library = load_library()
        assert library is not None, "native kernels are asked for first"
        x, rows = x.contiguous(), len(x)
        count = min(count, self.struct.outs)
        values, ids = x.new_empty(rows, count), torch.empty(rows, count, dtype=torch.long)
        totals = torch.empty(rows, 1, dtype=torch.float64)
        found = values.data_ptr(), ids.data_ptr(), totals.data_ptr()
        if library.panel_top(
            ctypes.byref(self.struct), x.data_ptr(), rows, x.shape[1], count, *found, torch.get_num_threads()
        ):
            raise MemoryError(f"a product of {rows} rows does not fit into memory")
        return values.double() - totals, ids


def in_panels(weight: Shaped[Tensor, "O I"], together: int) -> Shaped[Tensor, "P Q 32 G"]:
    """A matrix in panels of 32 outputs, (O / 32, I / together, 32, together), padded with zeros."""
    outs, ins = weight.shape
    padded = F.pad(weight, (0, -ins % together, 0, -outs % PANEL))
    return padded.view(len(padded) // PANEL, PANEL, -1, together).transpose(1, 2).contiguous()
