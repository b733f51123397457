"""Compiled matrix products: the numbers of float64 arithmetic, rows that do not depend on each other or on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from clearstory.models.matmul.block_linear import BlockQuantizedLinear, IntegerGroups
from clearstory.models.matmul.packed import (
    NativeLinear,
    float_matrix,
    groups_matrix,
    int4_matrix,
    int8_matrix,
    pack_linear,
)
from clearstory.models.matmul.quantization import column_factors_of_int8, quantize_rows
from clearstory.models.native.linear import FP16, FP32, NativeMatrix

pytestmark = pytest.mark.usefixtures("compiled_kernels")

SHAPES = [(1, 1), (3, 31), (4, 32), (5, 33), (7, 65), (12, 64), (130, 100), (66, 577)]
"""(outs, ins): multiples of the kernels' blocks of 4 and of 32 and 64, and not."""


def normal(*shape: int, seed: int = 7) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case(NamedTuple):
    """A matrix as the kernels read it, and its exact numbers."""

    matrix: NativeMatrix
    weight: Tensor
    columns: Tensor | None = None


def case_fp32(outs: int, ins: int, bias: Tensor | None) -> Case:
    weight = normal(outs, ins)
    return Case(float_matrix(weight, bias, FP32, torch.float32), weight.double())


def case_fp16(outs: int, ins: int, bias: Tensor | None) -> Case:
    weight = normal(outs, ins)
    return Case(float_matrix(weight, bias, FP16, torch.float16), weight.half().double())


def case_int8(outs: int, ins: int, bias: Tensor | None) -> Case:
    weight = normal(outs, ins)
    weight[:, ins // 2] *= 300  # needs column factors
    columns = column_factors_of_int8(weight)
    integers, scales = quantize_rows(weight, columns)
    return Case(int8_matrix(weight, bias), integers.double() * scales.double()[:, None], columns)


def case_groups(precision: Any, low: int, high: int, outs: int, ins: int, bias: Tensor | None) -> Case:
    chance = torch.Generator().manual_seed(outs + ins)
    n_groups = -(-ins // 32)
    whole = torch.randint(low, high, (outs, n_groups * 32), generator=chance).float()
    scale = torch.rand(outs, n_groups, generator=chance).half().float()
    offset = torch.randn(outs, n_groups, generator=chance).half().float()
    groups = IntegerGroups(precision, whole, scale, offset)
    # The kernels' offset is that of integer 0, in fp16.
    shift = (offset - groups.zero * scale).half().double()
    exact = whole.double() * scale.double().repeat_interleave(32, 1) + shift.repeat_interleave(32, 1)
    return Case(groups_matrix(groups, None, bias, ins), exact[:, :ins])


def case_int8_groups(outs: int, ins: int, bias: Tensor | None) -> Case:
    return case_groups("int8", -128, 128, outs, ins, bias)


def case_int4_groups(outs: int, ins: int, bias: Tensor | None) -> Case:
    return case_groups("int4", 0, 16, outs, ins, bias)


CASES: dict[str, Callable[[int, int, Tensor | None], Case]] = {
    "fp32": case_fp32,
    "fp16": case_fp16,
    "int8": case_int8,
    "int8 groups": case_int8_groups,
    "int4 groups": case_int4_groups,
}


def largest_error(kind: str, x: Tensor, case: Case) -> Tensor:
    """The most that a product may be off: fp32 rounding of its sums, and inputs rounded to 15 bits for integers."""
    products = x.double().abs() @ case.weight.abs().T
    if not kind.startswith("int"):
        return 1e-6 * products
    step = x.double().abs().amax(1, keepdim=True) / 32767
    # In groups, integers and offsets are summed apart, and may cancel.
    apart = 60 * x.double().abs().sum(1, keepdim=True) if "groups" in kind else 0
    return 0.51 * step * case.weight.abs().sum(1) + 1e-6 * (products + apart)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(("outs", "ins"), SHAPES)
def test_products_are_those_of_float64(kind: str, outs: int, ins: int) -> None:
    bias = normal(outs, seed=3) if outs % 2 else None
    case = CASES[kind](outs, ins, bias)
    x = normal(9, ins, seed=2)
    scaled = x if case.columns is None else x * case.columns
    wanted = scaled.double() @ case.weight.T
    found = case.matrix.multiply(x).double()
    if bias is not None:
        wanted += bias
    assert ((found - wanted).abs() <= largest_error(kind, scaled, case) + 1e-6 * wanted.abs()).all()


@pytest.mark.parametrize("kind", CASES)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    matrix = CASES[kind](37, 45, normal(37, seed=3)).matrix
    x = normal(130, 45)
    together = matrix.multiply(x)
    for rows in range(1, 131):
        assert torch.equal(matrix.multiply(x[:rows]), together[:rows]), rows
        assert torch.equal(matrix.multiply(x[rows - 1 : rows])[0], together[rows - 1]), rows


def test_one_row_and_many_sum_long_rows_of_int8_alike() -> None:
    """Integers of long rows are summed in parts, whose sums are rounded."""
    matrix = int8_matrix(normal(6, 10_000), normal(6, seed=3))
    x = normal(70, 10_000, seed=2)
    together = matrix.multiply(x)
    for row in (0, 37, 69):
        assert torch.equal(matrix.multiply(x[row : row + 1])[0], together[row])


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", CASES)
def test_threads_change_nothing(kind: str, two_threads: None) -> None:
    matrix = CASES[kind](130, 100, None).matrix
    for rows in (1, 7, 70):
        x = normal(rows, 100)
        by_two = matrix.multiply(x)
        torch.set_num_threads(1)
        assert torch.equal(matrix.multiply(x), by_two)
        torch.set_num_threads(2)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(kind: str, number: float) -> None:
    case = CASES[kind](10, 70, None)
    x = normal(9, 70)
    wanted = case.matrix.multiply(x)
    x[4, 65] = number
    found = case.matrix.multiply(x)
    assert not found[4].isfinite().any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[others], wanted[others])


@pytest.mark.parametrize("kind", CASES)
def test_no_rows_and_rows_of_zeros(kind: str) -> None:
    case = CASES[kind](6, 40, None)
    assert case.matrix.multiply(torch.zeros(0, 40)).shape == (0, 6)
    assert torch.equal(case.matrix.multiply(torch.zeros(2, 40)), torch.zeros(2, 6))


@pytest.mark.parametrize("ins", [576, 20_000])
def test_the_largest_integers_do_not_overflow(ins: int) -> None:
    """All weights are 127 and all inputs 32,767 in integers: their sum over 576 inputs has 32 bits."""
    for matrix in (
        int8_matrix(torch.ones(5, ins), None),
        groups_matrix(
            IntegerGroups(
                "int8", torch.full((5, ins), 127.0), torch.full((5, ins // 32), 1 / 128), torch.zeros(5, ins // 32)
            ),
            None,
            None,
        ),
    ):
        one = float(matrix.multiply(torch.eye(1, ins))[0, 0])
        for sign in (1, -1):
            found = matrix.multiply(torch.full((3, ins), 2.0 * sign))
            assert torch.allclose(found, torch.full((3, 5), 2.0 * sign * ins * one), rtol=1e-4)


@pytest.mark.parametrize("factor", [2.0**-50, 2.0**-20, 2.0**20, 2.0**50])
@pytest.mark.parametrize("make", [int8_matrix, int4_matrix], ids=["int8", "int4"])
def test_the_size_of_weights_and_inputs_does_not_matter(make: Any, factor: float) -> None:
    """Scales are in fp16 in groups, which has no numbers below 6e-8 and above 65,504."""
    weight, x = normal(20, 96), normal(3, 96, seed=1)
    usual = make(weight, None).multiply(x)
    assert torch.allclose(make(weight * factor, None).multiply(x) / factor, usual, rtol=1e-4, atol=1e-4)
    assert torch.allclose(make(weight, None).multiply(x * factor) / factor, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_of_a_file_are_exactly_its_numbers(name: str) -> None:
    """One input at a time is one weight of each output; scales and offsets are of the sizes that files have."""
    from clearstory.formats.gguf.quantization import BLOCK_FORMATS

    format = BLOCK_FORMATS[name]
    row_bytes = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[name]
    chance = torch.Generator().manual_seed(2)
    blocks = torch.randint(0, 256, (7, 3 * row_bytes), dtype=torch.uint8, generator=chance)
    halves = torch.randn(7, 3, 2, generator=chance).mul_(10.0 ** torch.linspace(-4, 0, 7)[:, None, None]).half()
    header = 4 if name == "Q4_1" else 2
    blocks.view(7, 3, row_bytes)[:, :, :header] = halves.view(torch.uint8)[:, :, :header]
    linear = BlockQuantizedLinear(blocks, format, 96, None)
    product = pack_linear([linear], format.precision)
    assert isinstance(product, NativeLinear)
    assert product.precision == format.precision
    numbers = product(torch.eye(96)).T
    # An integer times its scale may cancel with the offset.
    largest = linear.weight.view(7, 3, 32).abs().amax(-1).repeat_interleave(32, 1)
    assert ((numbers - linear.weight).abs() <= 1e-6 * largest).all()


def test_inputs_in_any_strides_and_dtypes() -> None:
    linear = nn.Linear(48, 20).requires_grad_(False)
    product = pack_linear([linear], "fp32")
    assert isinstance(product, NativeLinear)
    x = normal(48, 6).T
    assert torch.allclose(product(x), linear(x), rtol=1e-4, atol=1e-5)
    wide = normal(6, 96)
    assert torch.allclose(product(wide[:, ::2]), linear(wide[:, ::2]), rtol=1e-4, atol=1e-5)
    assert torch.allclose(product(x.double()), linear.double()(x.double()), rtol=1e-4, atol=1e-5)
