"""Limits of the thread of a served model, and its statistics."""

from __future__ import annotations

from dataclasses import dataclass

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """Limits of the thread of one model.

    Args:
        max_running: maximum number of texts in prefill or generation at the same time.
        max_waiting: maximum number of waiting requests; further ones are refused.
        max_prompt_tokens: maximum number of tokens of a prompt; None: the model's context.
        timeout: seconds from a request to the end of its text; None for no limit.
        prefill_tokens: approximate maximum number of prompt tokens per step while other texts are running.
        prefix_bytes: approximate maximum size of the prefix cache in bytes; 0: no prefix cache.
        threads: number of CPU threads; None: PyTorch's number.
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
    """Statistics of the thread of a model.

    Args:
        running: texts in the batch.
        waiting: requests that wait or are in prefill.
        prompt_tokens: prompt tokens of all texts that have started.
        cached_tokens: how many of them were found in the prefix cache or shared.
        generated_tokens: tokens generated.
        finished: requests that ended without an error.
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
