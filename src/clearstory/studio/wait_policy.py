"""OpenMP wait policy: idle compute threads of the server sleep instead of spinning.

By default an OpenMP thread that has finished its part spins for a while, which is fast on idle cores. While a training
run uses the same two cores, spinning slows both down: SmolLM2 processed 32 tokens in 0.8 to 1.6 s where it takes 0.12 s
with sleeping threads; on idle cores it took 0.10 s instead of 0.09 s (medians of nine, alternating).
"""

from __future__ import annotations

import os

VARIABLE = "OMP_WAIT_POLICY"
"""Read by OpenMP when torch is loaded: by LLVM's and by GNU's implementation."""

CHANGED: list[str] = []
"""Variables that `use_passive_wait` set; training runs started from the studio do not inherit them."""


def use_passive_wait() -> None:
    """Set the wait policy to passive, unless the environment already sets one."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "passive"
        CHANGED.append(VARIABLE)


def original_environment() -> dict[str, str]:
    """The environment variables without those that `use_passive_wait` set."""
    return {name: value for name, value in os.environ.items() if name not in CHANGED}
