"""Limits of the thread of a served model, and its statistics."""

from __future__ import annotations

from dataclasses import dataclass

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """Limits of the thread of one model.

    Args:
        max_running: largest number of texts that are read or generated at once.
        max_waiting: largest number of requests that wait for their turn; more are refused.
        max_prompt_tokens: tokens of the longest prompt; None for the model's context.
        timeout: seconds from a request to the end of its text; None for no limit.
        prefill_tokens: about the largest number of prompt tokens that are read between two tokens of running texts.
        prefix_bytes: about the largest memory for beginnings of prompts that are kept for later ones; 0 to keep none.
        threads: threads of computation; None for those of PyTorch.
    """

    max_running: int = 32
    max_waiting: int = 256
    max_prompt_tokens: int | None = 2**17
    timeout: float | None = 600.0
    prefill_tokens: int = 64
    prefix_bytes: int = 2**28
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_running", "prefill_tokens", "threads", "max_prompt_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        for name in ("max_waiting", "prefix_bytes"):
            if getattr(self, name) < 0:
                raise BadSetting(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.timeout is not None and not self.timeout > 0:
            raise BadSetting(f"timeout is {self.timeout}; it must be more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class EngineStatistics:
    """What a thread does and has done.

    Args:
        running: texts in the batch.
        waiting: requests that wait or are being read.
        prompt_tokens: prompt tokens of all texts that have begun.
        cached_tokens: how many of them were not read for their own text.
        generated_tokens: tokens generated.
        finished: requests that ended as they should.
        cancelled: requests that were cancelled.
        failed: requests that ended with an error.
    """

    running: int
    waiting: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    finished: int
    cancelled: int
    failed: int
