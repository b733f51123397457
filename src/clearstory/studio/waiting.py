"""Waiting: how the threads of a computation wait for each other.

By default a thread that has done its share spins for a while, which is quick where nothing else wants its core. Beside
a training it burns what the other needs: SmolLM2 read 32 tokens in 0.8 to 1.6 s on two busy cores where it takes 0.12
when waiting threads sleep, and 0.10 in place of 0.09 on idle ones (medians of nine, taken in turn).
"""

from __future__ import annotations

import os

VARIABLE = "OMP_WAIT_POLICY"
"""Read by OpenMP when torch is loaded: LLVM's and GNU's alike."""

SET: list[str] = []
"""The variable, where `patient` set it: what is trained from here has a process of its own, and its usual way."""


def patient() -> None:
    """Let waiting threads sleep, unless the environment says how they are to wait."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "passive"
        SET.append(VARIABLE)


def environment() -> dict[str, str]:
    """The environment as it was before."""
    return {name: value for name, value in os.environ.items() if name not in SET}
