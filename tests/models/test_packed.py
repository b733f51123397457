"""Packed linear layers: what each precision rounds, independent rows, and processors without kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from clearstory.errors import CannotDo
from clearstory.models.matmul import kernels, packed
from clearstory.models.matmul.block_linear import BlockQuantizedLinear
from clearstory.models.matmul.packed import NativeLinear, is_available, pack_linear
from clearstory.models.native.library import VARIABLE

pytestmark = pytest.mark.usefixtures("kernels_by")

SHAPES = [(64, 48), (96, 100), (33, 7)]
"""(in, out): multiples of the kernels' blocks, and not."""

ERRORS = {"fp32": 1e-6, "fp16": 4e-4, "bf16": 6e-3, "int8": 6e-3, "int4": 0.08}
"""The most that outputs differ, as a share of their root mean square, about twice what rounding uniform weights costs:
2^-12 of a weight in fp16, 1/254 of a row's largest in int8, 1/30 of a group's span in int4."""


def layer(width: int, out: int, bias: bool = True) -> nn.Linear:
    """A linear layer with initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(width + out)
        return nn.Linear(width, out, bias=bias).requires_grad_(False)


def inputs(rows: int, width: int) -> torch.Tensor:
    """Normal inputs, one of which is an outlier."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(7))
    x[0, 3] = 50
    return x


def packed_or_skip(linears: list[nn.Linear], precision: Any) -> Any:
    """Packed layers; skips where this processor has no such kernels."""
    if not is_available(precision):
        pytest.skip(f"no {precision} kernels here")
    return pack_linear(linears, precision)


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_layers_of_one_input_are_joined_and_rounded_alike(width: int, out: int, precision: str) -> None:
    layers = [layer(width, out), layer(width, out // 2, bias=False)]
    product = packed_or_skip(layers, precision)
    x = inputs(12, width).view(3, 4, width)
    exact = torch.cat([each.double()(x.double()) for each in layers], -1)
    found = product(x)
    assert found.shape == exact.shape
    assert found.dtype == torch.float32
    assert (found - exact).square().mean().sqrt() <= ERRORS[precision] * exact.square().mean().sqrt()
    assert product(x[0, 0]).shape == exact[0, 0].shape
    assert product(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_a_row_does_not_depend_on_the_other_rows(width: int, out: int, precision: str) -> None:
    product = packed_or_skip([layer(width, out)], precision)
    x = inputs(70, width)
    together = product(x)
    for rows in (1, 3, 8):
        assert torch.equal(torch.cat([product(part) for part in x.split(rows)]), together)


@pytest.mark.parametrize("steps", [127, 63], ids=["VNNI", "without VNNI"])
def test_int8_rounds_only_weights(steps: int, kernels_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each input is off by at most 1/(4 (steps + 1)) of a step, a step being the row's largest by `steps`."""
    if kernels_by == "torch" and steps > packed.int8_steps():
        pytest.skip("without VNNI, torch's kernels add pairs of such products in 16 bits, which overflow")
    monkeypatch.setattr(packed, "int8_steps", lambda: steps)
    linear = layer(64, 48, bias=False)
    product = packed_or_skip([linear], "int8")
    x = inputs(9, 64)
    assert isinstance(product, NativeLinear) == (kernels_by == "native")
    assert packed.column_factors_of_int8(linear.weight) is None
    scale = linear.weight.abs().amax(1, keepdim=True) / 127
    rounded = (linear.weight / scale).round().double() * scale.double()
    step = x.abs().amax(1, keepdim=True).double() / steps / (2 * steps + 2)
    most = step * rounded.abs().sum(1) / 2 + 2e-6 * x.double().abs() @ rounded.abs().T
    assert ((product(x) - x.double() @ rounded.T).abs() <= most).all()


def test_the_largest_products_do_not_overflow_in_int8() -> None:
    linear = layer(64, 48, bias=False)
    linear.weight.copy_(linear.weight.sign())
    linear.weight[0] = 1
    product = packed_or_skip([linear], "int8")
    for sign in (1, -1):
        x = torch.full((2, 64), 3.0 * sign)
        assert torch.allclose(product(x), linear(x), rtol=1e-3, atol=1e-2)
    assert torch.equal(product(torch.zeros(2, 64)), torch.zeros(2, 48))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_outliers_with_small_weights_cost_little(precision: str) -> None:
    """A channel 256 times as large, and its weights a 256th: the same products. Without column factors, its products
    would be lost: in both precisions all its weights would round to one number.
    """
    linear, x = layer(64, 48, bias=False), inputs(9, 64)
    usual = packed_or_skip([linear], precision)(x)
    exact = linear(x)
    linear.weight[:, 5] /= 256
    x[:, 5] *= 256
    error = (packed_or_skip([linear], precision)(x) - exact).norm()
    assert error <= 4 * (usual - exact).norm()


def test_weights_that_fp16_cannot_hold_stay_fp32() -> None:
    linear = layer(64, 48)
    for factor in (1e6, 1e-6):
        large = nn.Linear(64, 48)
        large.weight = nn.Parameter(linear.weight * factor, requires_grad=False)
        product = packed_or_skip([large], "fp16")
        x = inputs(3, 64)
        assert torch.allclose(product(x), large(x), rtol=1e-4, atol=1e-5 * factor)
        assert product.precision == "fp32"


def test_precisions_without_kernels_are_refused(kernels_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_fbgemm", lambda: False)
    monkeypatch.setattr(kernels, "has_int4_weights", lambda: False)
    if kernels_by == "native":
        assert all(map(is_available, ("fp16", "int8", "int4")))
        monkeypatch.setenv(VARIABLE, "0")
    for precision in ("fp16", "int8", "int4"):
        with pytest.raises(CannotDo, match=f"no {precision} kernels .* --precision fp32"):
            pack_linear([layer(64, 48)], precision)  # type: ignore[arg-type]  # a str
    monkeypatch.setattr(kernels, "has_onednn", lambda: False)
    linear, x = layer(64, 48), inputs(3, 64)
    assert torch.equal(pack_linear([linear], "fp32")(x), linear(x))


def test_functions_are_scripted_by_this_torch() -> None:
    assert kernels.scripted(kernels.linear_int8_weight) is not kernels.linear_int8_weight


def test_blocks_are_dequantized_at_each_access() -> None:
    from clearstory.formats.gguf.quantization import BLOCK_FORMATS

    blocks = torch.randint(0, 60, (48, 2 * 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    linear = BlockQuantizedLinear(blocks, BLOCK_FORMATS["Q8_0"], 64, None)
    plain = nn.Linear(64, 48, bias=False)
    plain.weight = nn.Parameter(linear.weight.clone(), requires_grad=False)
    x = inputs(3, 64)
    assert torch.equal(linear(x), plain(x))
    assert not list(linear.parameters())
