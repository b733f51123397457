"""A computation recorded in a CUDA graph: all its kernels are launched by one call.

Decoding one token launches a few hundred kernels of some microseconds, and Python takes longer to launch one than the
GPU to run it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def record_graph(compute: Callable[[], Tensor], device: torch.device, pool: Any = None) -> Callable[[], Tensor]:
    """A function that repeats `compute` on a CUDA device: the same kernels on the same memory.

    What changes between two calls must be values of tensors that exist before. The result is the same tensor at each
    call. Graphs of one `pool` share their memory and must not run at the same time. Raises RuntimeError for what cannot
    be recorded, such as a computation that waits for a value on the GPU.
    """
    with torch.cuda.device(device):
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
        try:
            # Libraries allocate and kernels are loaded at their first use, which cannot be recorded.
            side.wait_stream(current)
            with torch.cuda.stream(side):
                compute()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                out = compute()
        finally:
            # A recording that fails leaves its stream as the current one.
            torch.cuda.set_stream(current)

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
