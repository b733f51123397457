"""Which precision of constant weights decodes fastest on this machine: fp32, or fp16 where that is faster.

Both are accurate (fp16 weights cost less than 0.02 % of the bits per byte), and in fp16 a text does not depend on the
others of its batch. bf16 is not a candidate: it is slower than fp16 at one row wherever FBGEMM has kernels, and rounds
outputs, so that a text may depend on the size of the batch. Measured once in a fifth of a second, and kept beside the
cached token ids.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import nn

from clearstory.models.matmul.measurement_cache import Table, measured_once
from clearstory.models.matmul.packed import is_available, pack_linear
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
    """The precision that `auto` stands for: one for all batch sizes, so that a text does not depend on its batch."""
    times = decoding_times(torch.get_num_threads())

    def product(precision: str) -> float:
        return times["1"][precision] * times["8"][precision]

    return "fp16" if times and product("fp32") > LEAST_GAIN**2 * product("fp16") else "fp32"


@cache
def decoding_times(threads: int) -> Times:
    """Microseconds of a product of one and of eight rows: from the cache of this machine, or measured now; {} where
    there is no choice.
    """
    if not all(is_available(each) for each in CANDIDATES):
        return {}
    return measured_once(CACHE_FILE, threads, [str(rows) for rows in ROWS], CANDIDATES, measure_decoding_times)


CACHE_FILE = "precision.json"


@torch.inference_mode()
def measure_decoding_times() -> Times:
    """Microseconds of a product of one and of eight rows in each precision, the fastest of several rounds."""
    linear = nn.Linear(INPUTS, OUTPUTS, bias=False, device="meta")
    # Not random numbers: the global random generator must not advance.
    linear.weight = nn.Parameter(torch.linspace(-1, 1, INPUTS * OUTPUTS).view(OUTPUTS, INPUTS), requires_grad=False)
    packed = {each: [pack_linear([linear], each) for _ in range(COPIES)] for each in CANDIDATES}
    times: dict[str, dict[str, float]] = {}
    for rows in ROWS:
        x = torch.ones(rows, INPUTS)
        best = dict.fromkeys(CANDIDATES, float("inf"))
        for _ in range(ROUNDS):
            for precision, copies in packed.items():
                began = time.perf_counter()
                for each in copies:
                    each(x)
                best[precision] = min(best[precision], (time.perf_counter() - began) / COPIES * 1e6)
        times[str(rows)] = {name: round(value, 1) for name, value in best.items()}
    return times
