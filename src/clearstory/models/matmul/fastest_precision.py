"""Selection of the fastest precision for decoding on this machine: fp32 or fp16.

Both are accurate (fp16 weights cost less than 0.02 % of the bits per byte), and in fp16 a text does not depend on the
others of its batch. bf16 is not a candidate: it is slower than fp16 at one row wherever FBGEMM has kernels, and rounds
outputs, so that a text may depend on the size of the batch. Measured once in a fifth of a second, and kept beside the
cached token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from clearstory.models.matmul.measurement_cache import Measurement, MeasurementFile, Table, fastest_of
from clearstory.models.matmul.packed import PackedLinear, is_available, pack_linear
from clearstory.models.native.library import load_library
from clearstory.models.precision import PackedPrecision

Times = Table
"""Microseconds by number of rows (1, 8) and precision (fp32, fp16)."""

CANDIDATES: tuple[PackedPrecision, ...] = ("fp32", "fp16")
ROWS = (1, 8)
INPUTS, OUTPUTS = 768, 3072
COPIES = 3
"""Matrices that are read in turn, so that they are not all in the cache: 28 MB of fp32."""

ROUNDS = 8

LEAST_GAIN = 1.1
"""fp32 is kept where fp16 is not faster by this factor, more than measurements scatter."""


def fastest_precision() -> PackedPrecision:
    """The precision of `auto`, the same for all batch sizes, so that a text does not depend on its batch."""
    times = measured_times()

    def product(precision: str) -> float:
        return times["1"][precision] * times["8"][precision]

    return "fp16" if times and product("fp32") > LEAST_GAIN**2 * product("fp16") else "fp32"


TIMES_FILE = MeasurementFile("precision.json", rows=tuple(map(str, ROWS)), columns=CANDIDATES)


def measured_times() -> Times:
    """Microseconds of a product of one and of eight rows with the kernels and threads in use; {} where there is no
    choice.
    """
    return decoding_times(torch.get_num_threads(), kernels_in_use())


def kernels_in_use() -> str:
    """What times are kept for, besides the machine: compiled kernels, or those of PyTorch."""
    return "" if load_library() is None else "compiled kernels"


@cache
def decoding_times(threads: int, kernels: str) -> Times:
    """The times of so many threads: from the cache of this machine, or measured now."""
    return TIMES_FILE.once(threads, measure_decoding_times, kernels) if has_choice() else {}


def has_choice() -> bool:
    """Whether this machine has kernels for all candidates."""
    return all(map(is_available, CANDIDATES))


@torch.inference_mode()
def measure_decoding_times() -> Measurement:
    """Microseconds of a product of one and of eight rows in each precision."""
    linear = nn.Linear(INPUTS, OUTPUTS, bias=False, device="meta")
    # Not random numbers: the global random generator must not advance.
    linear.weight = nn.Parameter(torch.linspace(-1, 1, INPUTS * OUTPUTS).view(OUTPUTS, INPUTS), requires_grad=False)
    packed = {each: [pack_linear([linear], each) for _ in range(COPIES)] for each in CANDIDATES}

    def multiply(x: Tensor, copies: Sequence[PackedLinear]) -> None:
        for each in copies:
            each(x)

    calls: dict[tuple[str, str], Callable[[], None]] = {
        (str(rows), precision): partial(multiply, torch.ones(rows, INPUTS), copies)
        for rows in ROWS
        for precision, copies in packed.items()
    }
    return fastest_of(calls, ROUNDS, lambda seconds: seconds / COPIES * 1e6)


def measure_decoding_times_again() -> tuple[Measurement, Path | None] | None:
    """Times measured now, in place of those in the cache, and the file that keeps them; None if there is no
    choice.
    """
    if not has_choice():
        return None
    result = TIMES_FILE.again(torch.get_num_threads(), measure_decoding_times, kernels_in_use())
    decoding_times.cache_clear()
    return result
