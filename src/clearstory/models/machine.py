"""Machine: how fast this one multiplies, measured rather than read off its label."""

from __future__ import annotations

import time
from functools import cache

import torch


def matmul_gflops(
    dtype: torch.dtype = torch.float32, size: int = 512, threads: int | None = None, seconds: float = 0.1
) -> float:
    """Billions of floating-point operations a second in square matrix products on the processor, the best of several.

    `threads` are those of torch when not given. Takes about `seconds`; one product at least, however slow.

    >>> matmul_gflops(size=64, seconds=0.01) > 0
    True
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        # Ones, not random numbers: the module must not disturb torch's generator, and the time is the same.
        a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        best, start = float("inf"), time.perf_counter()
        with torch.inference_mode():
            while best == float("inf") or time.perf_counter() - start < seconds:
                begin = time.perf_counter()
                torch.mm(a, b)
                best = min(best, time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best / 1e9


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
def fastest_threads() -> int:
    """All of torch's threads, or one where that multiplies as fast: beside other work, threads wait for each other."""
    every = torch.get_num_threads()
    if every == 1:
        return 1
    # The median of single products, in turn: a busy machine is slow most of the time, an idle one only at first.
    rounds = [(matmul_gflops(size=512, threads=t, seconds=0.0) for t in (1, every)) for _ in range(25)]
    alone, together = zip(*rounds, strict=True)
    return every if sorted(together)[12] > sorted(alone)[12] else 1
