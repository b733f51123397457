"""Machine: which processors it has, and how fast they multiply, measured rather than read off a label."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from clearstory.errors import BadSetting

WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What cuBLAS is told before its first product, to give the same bits each time (its manual, "Reproducibility")."""


def resolve_device(device: str, setting: str = "device") -> str:
    """The device by a name that torch knows; auto is the GPU where there is one. Raises BadSetting.

    >>> resolve_device("cpu")
    'cpu'
    """
    chosen = device
    if device != "cpu":
        os.environ.setdefault(*WORKSPACE)
    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as reason:
        first = str(reason).splitlines()[0]
        raise BadSetting(f"{setting} is '{device}', which is not to be had here ({first}); try cpu") from None
    if chosen.startswith("cuda"):
        # fp32 means fp32: cuDNN's recurrent cells would else multiply in TF32, which has three digits.
        torch.backends.cudnn.allow_tf32 = False
    return chosen


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """While this lasts a GPU takes its sums in the same order each time, so that the same steps give the same bits.

    Fused attention and sums into rows otherwise add up as their threads come. A processor needs no such thing. It is
    not for all of a program: what writes text asks for cumulative sums, of which CUDA has no such form.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # Nothing here reads what it has not written, and filling would cost a pass over every new tensor.
    memory.fill_uninitialized_memory = False
    # Not torch.use_deterministic_algorithms, which does this and imports the compiler's settings: four seconds.
    torch._C._set_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled


def matmul_gflops(
    dtype: torch.dtype = torch.float32,
    size: int = 512,
    threads: int | None = None,
    seconds: float = 0.1,
    device: str = "cpu",
) -> float:
    """Billions of floating-point operations a second in square matrix products, the best of several.

    `threads` are those of torch when not given. Takes about `seconds`; one product at least, however slow.

    >>> matmul_gflops(size=64, seconds=0.01) > 0
    True
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        # Ones, not random numbers: the module must not disturb torch's generator, and the time is the same.
        a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
        if a.is_cuda:  # where ones are a tenth faster than what models hold: they take less power
            drawn = torch.Generator(device).manual_seed(0)
            a, b = (each.uniform_(-1, 1, generator=drawn) for each in (a, b))
        best, start = float("inf"), time.perf_counter()
        with torch.inference_mode():
            while best == float("inf") or time.perf_counter() - start < seconds:
                begin = time.perf_counter()
                torch.mm(a, b)
                if a.is_cuda:
                    torch.cuda.synchronize(a.device)
                best = min(best, time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best / 1e9


GPU_MATRIX_SIZE = 4096
"""Side of the matrices by which a GPU is measured: 512 would be over before the next is asked for."""


@cache
def bf16_is_fast() -> bool:
    """Whether bf16 matrix products beat fp32 on this processor. Measured once, in well under a second.

    Processors without bf16 arithmetic imitate it, 20 to 100 times slower: 1-2 GFLOP/s where fp32 has 95.
    """
    # 256: large enough to tell a factor of two, small enough that the slow kind takes 30 ms.
    fp32 = max(matmul_gflops(torch.float32, 256, seconds=0.03) for _ in range(3))
    bf16 = max(matmul_gflops(torch.bfloat16, 256, seconds=0.03) for _ in range(3))
    return bf16 > 1.2 * fp32


@cache
def fastest_thread_count() -> int:
    """All of torch's threads, or one where that multiplies as fast: beside other work, threads wait for each other."""
    every = torch.get_num_threads()
    if every == 1:
        return 1
    # The median of single products, in turn: a busy machine is slow most of the time, an idle one only at first.
    rounds = [(matmul_gflops(size=512, threads=t, seconds=0.0) for t in (1, every)) for _ in range(25)]
    alone, together = zip(*rounds, strict=True)
    return every if sorted(together)[12] > sorted(alone)[12] else 1
