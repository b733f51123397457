"""Selection of the library for fp32 matrix products on a CPU: the BLAS of `F.linear` (MKL on x86) or oneDNN.

Both are in the same wheel of torch, and which of them is faster depends on the processor and the product: on AMD's,
oneDNN was 1.1 to 2.3 times as fast. So it is measured, once for each processor, build of torch and number of threads,
in about a tenth of a second, and the result is kept beside the cached token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.models.matmul import kernels
from clearstory.models.matmul.measurement_cache import Measurement, MeasurementFile, Table, fastest_of

MatmulBackend = Literal["mkl", "onednn", "mixed"]
"""mkl: PyTorch's own F.linear and mm. onednn: all three products of a linear layer by oneDNN. mixed: x Wᵀ and g W by
oneDNN, and gᵀ x, the weight's gradient, by mm."""

BACKENDS: tuple[MatmulBackend, ...] = get_args(MatmulBackend)

Speeds = Table
"""GFLOP/s by product (forward, input_gradient, weight_gradient) and library (mkl, onednn)."""

SHAPE, ROUNDS = (384, 256, 512), 12
"""Rows, inputs and outputs of the products that are measured, a millisecond each, and how often: other processes slow
some of them down, so the fastest counts.
"""

LEAST_GAIN = 1.03
"""PyTorch's own products are kept where no other backend is faster by this factor, more than measurements scatter."""

_override: MatmulBackend | None = None


def matmul_backend() -> MatmulBackend:
    """The backend of this process: that of the innermost `using_backend`, else the fastest of this machine."""
    return _override or _fastest_here(torch.get_num_threads())


@cache
def _fastest_here(threads: int) -> MatmulBackend:
    return fastest_backend(measured_speeds(threads))


@contextmanager
def using_backend(name: MatmulBackend) -> Iterator[None]:
    """A block in which matrix products use this backend."""
    global _override
    before, _override = _override, name
    try:
        yield
    finally:
        _override = before


def resolve_backend(name: str, setting: str = "matmul") -> MatmulBackend:
    """The backend of this name; the process's for "auto". Raises BadSetting if torch was built without oneDNN.

    >>> resolve_backend("mkl")
    'mkl'
    """
    if name == "auto":
        return matmul_backend()
    if name != "mkl" and not kernels.has_onednn():
        raise BadSetting(f"{setting} is {name}, but this build of torch has no oneDNN; choose mkl or auto")
    return BACKENDS[BACKENDS.index(name)]


def fastest_backend(speeds: Speeds) -> MatmulBackend:
    """The backend that takes the least time for the three products together.

    >>> fastest_backend({"forward": {"mkl": 100, "onednn": 250}, "weight_gradient": {"mkl": 100, "onednn": 90}})
    'mixed'
    """

    def seconds(backend: MatmulBackend) -> float:
        return sum(1 / speed[library_of(backend, product)] for product, speed in speeds.items())

    best = min(BACKENDS, key=seconds)
    return best if seconds("mkl") > LEAST_GAIN * seconds(best) else "mkl"


def library_of(backend: MatmulBackend, product: str) -> str:
    """The library that computes a product in a backend: mkl or onednn."""
    if backend == "mixed":
        return "mkl" if product == "weight_gradient" else "onednn"
    return backend


PRODUCTS = "forward", "input_gradient", "weight_gradient"

SPEEDS_FILE = MeasurementFile("matmul.json", rows=PRODUCTS, columns=("mkl", "onednn"))


@cache
def measured_speeds(threads: int) -> Speeds:
    """Speeds of both libraries with so many threads: from the cache of this machine, or measured now and kept there."""
    if not kernels.has_onednn():
        return {}
    return SPEEDS_FILE.once(threads, measure_speeds)


def measure_speeds() -> Measurement:
    """GFLOP/s of the three products of a linear layer by both libraries."""
    rows, inputs, outputs = SHAPE
    # Not random: the global generator must not advance, and the time is the same.
    x, w, g = torch.ones(rows, inputs), torch.ones(outputs, inputs), torch.ones(rows, outputs)
    calls: dict[tuple[str, str], Callable[[], Tensor]] = {
        ("forward", "mkl"): lambda: F.linear(x, w),
        ("forward", "onednn"): lambda: kernels.onednn_linear(x, w),
        ("input_gradient", "mkl"): lambda: torch.mm(g, w),
        ("input_gradient", "onednn"): lambda: kernels.onednn_linear(g, w.t()),
        ("weight_gradient", "mkl"): lambda: torch.mm(g.t(), x),
        ("weight_gradient", "onednn"): lambda: kernels.onednn_linear(g.t(), x.t()),
    }
    gflop = 2 * rows * inputs * outputs / 1e9
    with torch.inference_mode():
        return fastest_of(calls, ROUNDS, lambda seconds: gflop / seconds)


def measure_speeds_again() -> tuple[Measurement, Path | None] | None:
    """Speeds measured now, in place of those in the cache, and the file that keeps them; None without oneDNN."""
    if not kernels.has_onednn():
        return None
    result = SPEEDS_FILE.again(torch.get_num_threads(), measure_speeds)
    measured_speeds.cache_clear()
    _fastest_here.cache_clear()
    return result
