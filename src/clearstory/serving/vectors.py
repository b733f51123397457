"""Batches of vectors: texts of several requests are embedded together, those of a large request in several batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clearstory.serving.requests import VectorRequest
from clearstory.serving.served_model import ServedModel

BATCH_TOKENS, SHARED_BATCH_TOKENS = 4096, 256
"""Tokens of the texts that are read together, at least one text; the second where texts are generated meanwhile, which
wait as long.
"""

DeliverVectors = Callable[[npt.NDArray[np.float32] | Exception], None]
"""Receives the vectors of a request, (N, W), or the error that ended it, in the thread of the model."""


@dataclass
class VectorJob:
    """A request for vectors in progress.

    Args:
        handle: its number in the thread.
        request: the request.
        deliver: receives the vectors.
        found: the vectors computed so far, of the first texts.
    """

    handle: int
    request: VectorRequest
    deliver: DeliverVectors
    found: list[npt.NDArray[np.float32]] = field(default_factory=list)


class VectorQueue:
    """Requests for vectors, in order of arrival."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.jobs: deque[VectorJob] = deque()

    def run_batch(self, max_tokens: int = BATCH_TOKENS) -> list[tuple[VectorJob, Exception | None]]:
        """Compute the vectors of the next texts, about so many tokens; the requests that are finished, or failed."""
        if not self.jobs:
            return []
        first = self.jobs[0].request
        alike = [
            job for job in self.jobs
            if (job.request.skipped, job.request.normalize) == (first.skipped, first.normalize)
        ]  # fmt: skip
        batch: list[tuple[VectorJob, tuple[int, ...]]] = []
        n_tokens = 0
        for job in alike:
            for row in job.request.rows[len(job.found) :]:
                n_tokens += len(row)
                if batch and n_tokens > max_tokens:
                    break
                batch.append((job, row))
            if n_tokens > max_tokens:
                break
        try:
            vectors = self.served.vectors([row for _, row in batch], first.skipped, first.normalize)
        except Exception as error:
            failed = [each for each in alike if any(job is each for job, _ in batch)]
            return [self.end(job, error) for job in failed]
        for (job, _), vector in zip(batch, vectors, strict=True):
            job.found.append(vector)
        return [self.end(job, None) for job in alike if len(job.found) == len(job.request.rows)]

    def end(self, job: VectorJob, error: Exception | None) -> tuple[VectorJob, Exception | None]:
        """A request that leaves the queue, and its error."""
        self.jobs.remove(job)
        return job, error

    def cancel(self, handle: int) -> bool:
        """Remove a request; whether it was there."""
        kept = deque(job for job in self.jobs if job.handle != handle)
        removed = len(kept) < len(self.jobs)
        self.jobs = kept
        return removed
