"""Thread choice: the fastest number of CPU threads for generation, by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import torch

from clearstory.errors import ClearstoryError
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, has_capability

TEXTS = 8
"""Number of texts that are generated together in the measurement."""

STEPS, ROUNDS = 4, 3
"""Tokens of each text in one round, and rounds with each number of threads, in turn."""

MAX_SECONDS = 4.0
"""Seconds after which no further round starts: a large model needs a second per token."""


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads.

    Args:
        threads: the number.
        speeds: tokens per second for each measured number; empty if nothing was measured.
    """

    threads: int
    speeds: dict[int, float]

    def __str__(self) -> str:
        number = f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        speeds = ", ".join(f"{speed:,.0f} tokens/s with {threads}" for threads, speed in self.speeds.items())
        return f"{number} ({TEXTS} texts at once: {speeds})" if speeds else number


def choose_threads(models: Iterable[LanguageModel], cores: int) -> ThreadChoice:
    """The fastest number of threads for the first model that generates text; `cores` if there is none.

    Sets torch's number of threads. A smaller number is chosen only if it is 5 % faster.
    """
    model = next((each for each in models if has_capability(each, Capability.CAUSAL)), None)
    if model is None or cores == 1:
        torch.set_num_threads(cores)
        return ThreadChoice(cores, {})
    numbers = sorted({cores, max(cores // 2, 1), 1}, reverse=True)
    try:
        speeds = measure_speeds(model, numbers)
    except ClearstoryError:
        speeds = {}
    fastest = max(speeds.values(), default=0.0)
    threads = next((each for each in numbers if speeds.get(each, 0) * 1.05 >= fastest), cores)
    torch.set_num_threads(threads)
    return ThreadChoice(threads, speeds)


def measure_speeds(model: LanguageModel, numbers: list[int]) -> dict[int, float]:
    """Tokens per second of `TEXTS` texts with each number of threads: medians of alternating rounds."""
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    started = time.monotonic()
    engine = Engine(model)
    tokens = STEPS * ROUNDS * len(numbers) + len(numbers) + 1
    for index in range(TEXTS):
        engine.add([index % model.vocab], Sampling(max_tokens=tokens, temperature=0))
    engine.next_tokens()
    for round in range(ROUNDS):
        for number in numbers:
            torch.set_num_threads(number)
            if round == 0:
                engine.next_tokens()  # buffers and threads are made
            start = time.perf_counter()
            for _ in range(STEPS):
                engine.next_tokens()
            seconds[number].append((time.perf_counter() - start) / STEPS)
        if time.monotonic() - started > MAX_SECONDS:
            break
    return {number: TEXTS / median(values) for number, values in seconds.items()}
