"""Which library multiplies fp32 matrices on this CPU: the BLAS behind `F.linear` (MKL on x86) or oneDNN.

Both are in the same wheel of torch, and which is faster depends on the processor: on AMD's, oneDNN was 1.1 to 2.3 times
as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

MatmulBackend = Literal["mkl", "onednn"]

_backend: MatmulBackend = "mkl"


def matmul_backend() -> MatmulBackend:
    """The backend of this process."""
    return _backend


@contextmanager
def using_backend(name: MatmulBackend) -> Iterator[None]:
    """A block in which matrix products use this backend."""
    global _backend
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before
