"""Devices: choosing one, deterministic kernels, and measured speeds of matrix products."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from clearstory.errors import BadSetting
from clearstory.models.matmul.backend import using_backend
from clearstory.models.matmul.linear import matmul

WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Environment variable that makes cuBLAS deterministic if set before its first use (its manual, "Reproducibility")."""


def resolve_device(device: str, setting: str = "device") -> str:
    """The device under a name that PyTorch knows; "auto" is a GPU where there is one. Raises BadSetting if unusable.

    >>> resolve_device("cpu")
    'cpu'
    """
    chosen = device
    if device != "cpu":
        os.environ.setdefault(*WORKSPACE)
    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if chosen.partition(":")[0] == "meta":
        raise BadSetting(f"{setting} is '{device}', which holds shapes and no numbers; choose cpu, cuda or mps")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as reason:
        first = str(reason).splitlines()[0]
        raise BadSetting(f"{setting} is '{device}', which is not available here ({first}); try cpu") from None
    if chosen.startswith("cuda"):
        # fp32 means fp32: cuDNN's recurrent cells would else multiply in TF32, which has three digits.
        torch.backends.cudnn.allow_tf32 = False
    return chosen


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Context in which a GPU uses deterministic kernels, so that the same computation gives the same bits.

    Fused attention and scatter-adds otherwise sum in the order in which their threads finish. CPU kernels are
    deterministic already. Not for a whole program: sampling needs cumulative sums, which have no deterministic CUDA
    kernel.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # No uninitialised memory is read here, and filling would cost a pass over every new tensor.
    memory.fill_uninitialized_memory = False
    # Not torch.use_deterministic_algorithms, which also imports the compiler's settings: four seconds.
    torch._C._set_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled


@contextmanager
def reusing_memory() -> Iterator[None]:
    """Context in which freed memory stays with the process for reuse (GNU's C library only).

    Each training step frees and takes the same tensors, and memory that went back to the system returns page by page:
    4 to 10 % of a step in fp32 of 1 to 10 million parameters, a fifth of one in bf16 with 12 million in the embedding.
    """
    libc = gnu_c_library()
    if libc is None:
        yield
        return
    try:
        # Without mappings, which malloc makes of more than 32 MB (the gradient of an embedding) and gives back at once.
        # Their threshold stays afterwards: malloc itself raises it up to that until it is set.
        with malloc_options(libc, {M_TRIM_THRESHOLD: 2**30, M_MMAP_THRESHOLD: 2**25, M_MMAP_MAX: 0}):
            yield
    finally:
        libc.malloc_trim(0)


@contextmanager
def on_huge_pages(n_bytes: int) -> Iterator[None]:
    """Context in which up to `n_bytes` of new tensors are allocated on huge pages of 2 MB (Linux with GNU's C library
    only).

    For weights that are read once a token: with pages of 4 KB, finding their addresses takes a quarter of the time.
    """
    libc = gnu_c_library()
    if libc is None:
        yield
        return
    # Memory is taken at the end of the heap, its pages are asked for before they are touched, and what is allocated
    # next lies there.
    with malloc_options(libc, {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}):
        size = n_bytes + 2 * HUGE_PAGE
        block = libc.malloc(size)
        if block:
            start = -(-block // HUGE_PAGE) * HUGE_PAGE
            libc.madvise(start, (block + size - start) // HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE)
            libc.free(block)
        yield


def ask_for_huge_pages(tensor: torch.Tensor) -> None:
    """Let a new tensor on a CPU, not written yet, lie on pages of 2 MB (Linux with GNU's C library only)."""
    size = tensor.numel() * tensor.element_size()
    if size < 2 * HUGE_PAGE or tensor.device.type != "cpu" or (libc := gnu_c_library()) is None:
        return
    start = -(-tensor.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    libc.madvise(start, (tensor.data_ptr() + size - start) // HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE)


@cache
def gnu_c_library() -> Any:
    """The C library of this process if it is GNU's, which has mallopt; else None."""
    try:
        libc: Any = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, TypeError, AttributeError):
        return None


# malloc.h; the defaults are glibc's, in bytes, and for M_MMAP_MAX the number of blocks.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
MALLOC_DEFAULTS = {M_TRIM_THRESHOLD: 2**17, M_MMAP_MAX: 65_536}

_malloc_options: list[Mapping[int, int]] = []


@contextmanager
def malloc_options(libc: Any, options: Mapping[int, int]) -> Iterator[None]:
    """Context with these options of malloc; afterwards those of the contexts that are still open apply, the last
    entered before others, or else the defaults. C has no function that reads an option.
    """

    def apply() -> None:
        for option in options:
            value = next((each[option] for each in reversed(_malloc_options) if option in each), None)
            value = MALLOC_DEFAULTS.get(option) if value is None else value
            if value is not None:
                libc.mallopt(option, value)

    entered = dict(options)
    _malloc_options.append(entered)
    apply()
    try:
        yield
    finally:
        # Not the last one: contexts of two threads may end in any order.
        _malloc_options[:] = [each for each in _malloc_options if each is not entered]
        apply()


HUGE_PAGE = 2**21
"""Bytes of a huge page of x86."""

MADV_HUGEPAGE = 14
"""mman.h."""


def matmul_gflops(
    dtype: torch.dtype = torch.float32,
    size: int = 512,
    threads: int | None = None,
    seconds: float = 0.1,
    device: str = "cpu",
) -> float:
    """Speed of square matrix products in GFLOP/s by the backend of this process, the best of several.

    `threads`: PyTorch's current number when None. Takes about `seconds`, and at least one product.

    >>> matmul_gflops(size=64, seconds=0.01) > 0
    True
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        # Ones, not random numbers: the global random generator must not advance, and the time is the same.
        a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
        if a.is_cuda:  # on a GPU ones are a tenth faster than real weights: they take less power
            generator = torch.Generator(device).manual_seed(0)
            a, b = (each.uniform_(-1, 1, generator=generator) for each in (a, b))
        best, start = float("inf"), time.perf_counter()
        with torch.inference_mode():
            while best == float("inf") or time.perf_counter() - start < seconds:
                began = time.perf_counter()
                matmul(a, b)
                if a.is_cuda:
                    torch.cuda.synchronize(a.device)
                best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best / 1e9


GPU_MATRIX_SIZE = 4096
"""Size of the matrices for measuring a GPU: products of size 512 would finish before the next one is launched."""


@cache
def bf16_is_fast() -> bool:
    """Whether bf16 matrix products are faster than fp32 on this CPU. Measured once, in well under a second.

    CPUs without bf16 instructions emulate them, 20 to 100 times slower: 1-2 GFLOP/s where fp32 has 95.
    """
    # 256: large enough to show a factor of two, small enough that emulation takes 30 ms.
    fp32 = max(matmul_gflops(torch.float32, 256, seconds=0.03) for _ in range(3))
    bf16 = max(matmul_gflops(torch.bfloat16, 256, seconds=0.03) for _ in range(3))
    return bf16 > 1.2 * fp32


@cache
def fastest_thread_count() -> int:
    """PyTorch's number of threads, or 1 if one thread is as fast, since threads wait for each other on a busy
    machine.
    """
    every = torch.get_num_threads()
    if every == 1:
        return 1
    # The median of single products, alternating: a busy machine is slow most of the time, an idle one only at first.
    with using_backend("mkl"):  # the fastest is measured afterwards, with the number of threads chosen here
        rounds = [[matmul_gflops(size=512, threads=t, seconds=0.0) for t in (1, every)] for _ in range(25)]
    single, multiple = zip(*rounds, strict=True)
    return every if sorted(multiple)[12] > sorted(single)[12] else 1
