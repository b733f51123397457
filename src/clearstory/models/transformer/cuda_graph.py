"""CUDA graphs: computations whose kernels are recorded once and then launched with one call.

Decoding one token launches a few hundred kernels of some microseconds each, and Python takes longer to launch a kernel
than the GPU to run it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CALLS_BEFORE_RECORDING = 2
"""Number of calls of a computation before it is recorded, since recording takes as long as a few calls."""

ONE_AT_A_TIME = threading.Lock()
"""A process records one graph at a time."""


class CUDAGraph:
    """A recorded computation: the same kernels on the same memory at each call, the result in the same tensor.

    What changes between two calls must be values of tensors that exist before. Raises RuntimeError for what cannot be
    recorded, such as a computation that waits for a value on the GPU.

    Args:
        compute: the computation; it is called twice.
        device: the GPU.
        other: a graph whose memory it shares; the two must not run at the same time.
    """

    graph: torch.cuda.CUDAGraph
    result: Tensor

    def __init__(self, compute: Callable[[], Tensor], device: torch.device, other: CUDAGraph | None = None) -> None:
        with torch.cuda.device(device), ONE_AT_A_TIME:
            current = torch.cuda.current_stream()
            # Graphs that share memory are recorded on one stream.
            self.stream: Any = torch.cuda.Stream() if other is None else other.stream  # type: ignore[no-untyped-call]
            pool = None if other is None else other.graph.pool()
            try:
                # Libraries allocate and kernels are loaded at their first use, which cannot be recorded.
                self.stream.wait_stream(current)
                with torch.cuda.stream(self.stream):
                    compute()
                current.wait_stream(self.stream)
                self.graph = torch.cuda.CUDAGraph()
                # thread_local: other threads may use the GPU meanwhile.
                with torch.cuda.graph(self.graph, pool, self.stream, capture_error_mode="thread_local"):
                    self.result = compute()
            finally:
                # A recording that fails leaves its stream as the current one.
                torch.cuda.set_stream(current)

    def __call__(self) -> Tensor:
        """The result for the present values, which the next call overwrites."""
        self.graph.replay()
        return self.result


class CUDAGraphs:
    """Computations by a key, each recorded after its first calls; where recording fails, none is from then on.

    Args:
        device: the GPU.
        record: makes a recorded computation; see `CUDAGraph`.
    """

    def __init__(self, device: torch.device, record: Callable[..., CUDAGraph] = CUDAGraph) -> None:
        self.device = device
        self.record = record
        self.graphs: dict[int, CUDAGraph] = {}
        self.n_calls: Counter[int] = Counter()
        self.eager_reason: str | None = None  # why nothing is recorded

    def run(self, key: int, compute: Callable[[], Tensor]) -> Tensor:
        """The result of `compute`, which must be the same computation for the same key."""
        self.n_calls[key] += 1
        if key not in self.graphs and self.eager_reason is None and self.n_calls[key] > CALLS_BEFORE_RECORDING:
            try:
                self.graphs[key] = self.record(compute, self.device, next(iter(self.graphs.values()), None))
            except RuntimeError as error:
                # Where the computation failed, ending the recording failed too.
                self.eager_reason = str(error.__context__ or error).partition("\n")[0]
        graph = self.graphs.get(key)
        return compute() if graph is None else graph()

    def clear(self) -> None:
        """Forget all graphs: the memory that they use was replaced."""
        self.graphs.clear()
        self.n_calls.clear()
