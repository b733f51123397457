"""EngineThread: the thread that runs a served model for the requests of all other threads.

 any thread: submit, cancel ─► inbox ─► thread: Engine.next_tokens ─► deliver(TextEvent) for each token

Between two steps the thread takes new requests, computes a batch of vectors, and ends texts that exceed their timeout.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

import numpy as np
import torch

from clearstory.errors import ContextOverflow, Overloaded
from clearstory.generation.engine import Engine
from clearstory.generation.prefix_cache import PrefixCache
from clearstory.serving.limits import EngineLimits as EngineLimits
from clearstory.serving.limits import EngineStatistics as EngineStatistics
from clearstory.serving.requests import TextRequest, VectorRequest
from clearstory.serving.served_model import ServedModel
from clearstory.serving.text_job import DeliverText, TextJob
from clearstory.serving.vectors import (
    BATCH_TOKENS,
    SHARED_BATCH_TOKENS,
    DeliverVectors,
    VectorJob,
    VectorQueue,
)

log = logging.getLogger("clearstory.serving")


class EngineThread:
    """The thread of a served model; it starts immediately and runs until `stop`.

    Args:
        served: the model.
        limits: limits of its requests.
    """

    def __init__(self, served: ServedModel, limits: EngineLimits = EngineLimits()) -> None:
        self.served, self.limits = served, limits
        self.changed = Condition()
        self.inbox: deque[TextJob | VectorJob | Callable[[], None]] = deque()
        self.cancelling: set[int] = set()
        self.closed = self.stopping = False
        self.n_handles = self.n_unfinished = 0
        self.counts = dict.fromkeys(("prompt", "cached", "generated", "finished", "cancelled", "failed"), 0)
        # From here on, of the thread alone.
        self.jobs: dict[int, TextJob] = {}  # by their number in the engine
        self.vector_queue = VectorQueue(served)
        self.prefix_cache = PrefixCache(limits.prefix_bytes) if limits.prefix_bytes else None
        self.engine = self.new_engine()
        self.thread = Thread(target=self.run, name=f"engine of {served.name}", daemon=True)
        self.thread.start()

    def submit(self, request: TextRequest, deliver: DeliverText) -> int:
        """Submit a text; returns the handle to cancel it. `deliver` gets its events in this thread and must not block.

        Raises CannotDo for a model that generates no text, ContextOverflow beyond `max_prompt_tokens`, Overloaded
        beyond `max_waiting`. Other errors of the request are delivered.
        """
        self.served.require_text()
        length, longest = max(len(request.prompt), len(request.source or ())), self.limits.max_prompt_tokens
        if longest is not None and length > longest:
            raise ContextOverflow(f"the prompt has {length:,} tokens; at most {longest:,} are supported")
        timeout = self.limits.timeout if request.timeout is None else request.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        return self.enqueue(lambda handle: TextJob(handle, request, deliver, deadline))

    def submit_vectors(self, request: VectorRequest, deliver: DeliverVectors) -> int:
        """Submit texts to embed and return the handle to cancel them. Raises CannotDo and Overloaded."""
        self.served.require_vectors()
        return self.enqueue(lambda handle: VectorJob(handle, request, deliver))

    def submit_call(self, function: Callable[[], Any], deliver: Callable[[Any], None]) -> None:
        """Call a function between two steps, and deliver its result or the Exception that it raises."""

        def call() -> None:
            result: Any
            try:
                result = function()
            except Exception as error:
                result = error
            self.count("failed" if isinstance(result, Exception) else "finished", ended=True)
            self.hand_over(deliver, result)

        self.enqueue(lambda handle: call)

    def enqueue(self, make: Callable[[int], TextJob | VectorJob | Callable[[], None]]) -> int:
        """Put the result of `make` for a new handle into the inbox."""
        with self.changed:
            if self.closed:
                raise Overloaded(f"the model '{self.served.name}' is shut down; retry later")
            if self.n_unfinished >= self.limits.max_running + self.limits.max_waiting:
                raise Overloaded(
                    f"{self.n_unfinished:,} requests are running or waiting for the model '{self.served.name}', the "
                    "maximum; retry later"
                )
            self.n_handles += 1
            self.n_unfinished += 1
            self.inbox.append(make(self.n_handles))
            self.changed.notify_all()
            return self.n_handles

    def cancel(self, handle: int) -> None:
        """Cancel a request: nothing is delivered after the current step. Finished requests are ignored."""
        with self.changed:
            self.cancelling.add(handle)
            self.changed.notify_all()

    def statistics(self) -> EngineStatistics:
        """Current counts and totals since the start."""
        with self.changed:
            running, counts = min(len(self.engine.running), self.n_unfinished), dict(self.counts)
            return EngineStatistics(
                running=running,
                waiting=self.n_unfinished - running,
                prompt_tokens=counts["prompt"],
                cached_tokens=counts["cached"],
                generated_tokens=counts["generated"],
                finished=counts["finished"],
                cancelled=counts["cancelled"],
                failed=counts["failed"],
            )

    def close(self) -> None:
        """Refuse new requests; submitted ones continue."""
        with self.changed:
            self.closed = True

    def drain(self, timeout: float | None = None) -> bool:
        """Refuse new requests and wait for the others; returns whether all of them have finished."""
        self.close()
        with self.changed:
            return self.changed.wait_for(lambda: self.n_unfinished == 0, timeout)

    def stop(self, timeout: float | None = 10.0) -> None:
        """End all requests with an error, and the thread."""
        with self.changed:
            self.closed = self.stopping = True
            self.changed.notify_all()
        self.thread.join(timeout)

    def run(self) -> None:
        """The main loop of the thread: steps until it is stopped."""
        if self.limits.threads is not None:
            torch.set_num_threads(self.limits.threads)
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.inbox or self.cancelling or self.stopping or self.is_busy)
                arrived, self.inbox = self.inbox, deque()
                cancelled, self.cancelling = self.cancelling, set()
                stopping = self.stopping
            self.take(arrived, cancelled)
            if stopping:
                stopped = Overloaded("the server is stopping; retry later")
                for text_job in list(self.jobs.values()):
                    self.fail(text_job, stopped)
                for vector_job in list(self.vector_queue.jobs):
                    self.end_vectors(vector_job, stopped)
                return
            for vector_job, error in self.vector_queue.run_batch(SHARED_BATCH_TOKENS if self.jobs else BATCH_TOKENS):
                self.end_vectors(vector_job, error)
            self.step()
            for text_job in [each for each in self.jobs.values() if each.is_late]:
                self.fail(text_job, Overloaded("the text took longer than this server allows; request fewer tokens"))

    @property
    def is_busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self.jobs or self.vector_queue.jobs)

    def take(self, arrived: deque[TextJob | VectorJob | Callable[[], None]], cancelled: set[int]) -> None:
        """Start new requests and end cancelled ones."""
        for each in arrived:
            if isinstance(each, VectorJob):
                self.vector_queue.jobs.append(each)
            elif not isinstance(each, TextJob):
                each()
            elif each.handle in cancelled:
                cancelled.discard(each.handle)
                self.count("cancelled", ended=True)
            else:
                self.begin(each)
        for job in [job for job in self.jobs.values() if job.handle in cancelled]:
            self.engine.cancel(self.remove(job))
            self.count("cancelled", ended=True)
        for handle in cancelled:
            if self.vector_queue.cancel(handle):
                self.count("cancelled", ended=True)

    def begin(self, job: TextJob) -> None:
        """Add a text to the engine, or end it with the error of its request."""
        try:
            job.begin(self.engine, self.served.tokenizer, self.served.prompt_format)
        except Exception as error:
            self.count("failed", ended=True)
            self.hand_over(job.deliver, error)
        else:
            assert job.number is not None, "the engine has numbered it"
            self.jobs[job.number] = job

    def step(self) -> None:
        """One token of each running text. An exception of the model ends only running texts and those in prefill."""
        if not self.jobs:
            return
        try:
            outputs = self.engine.next_tokens()
        except Exception as error:
            log.exception("a step of the model %s failed", self.served.name)
            self.recover(error)
            return
        for output in outputs:
            job = self.jobs[output.request]
            event = job.event(output)
            if isinstance(event, Exception):
                self.fail(job, event)
                continue
            self.count("generated")
            if event.prompt is not None:
                self.count("prompt", event.prompt.n_tokens)
                self.count("cached", event.prompt.n_cached)
            if event.finish is not None:
                self.engine.cancel(self.remove(job))  # a stop string is no end for the engine
                self.count("finished", ended=True)
            if not self.hand_over(job.deliver, event) and event.finish is None:
                self.engine.cancel(self.remove(job))
                self.count("cancelled", ended=True)

    def recover(self, error: Exception) -> None:
        """Start a new engine: texts that were running or in prefill end with the error, waiting ones continue."""
        waiting = {request.request for request in self.engine.waiting}
        jobs, self.jobs = self.jobs, {}
        self.engine = self.new_engine()
        if self.prefix_cache is not None:
            self.prefix_cache.prefixes.clear()
        for number, job in jobs.items():
            if number in waiting:
                self.begin(job)
            else:
                self.count("failed", ended=True)
                self.hand_over(job.deliver, error)

    def new_engine(self) -> Engine:
        """An engine without requests."""
        return Engine(
            self.served.model,
            self.limits.max_running,
            self.served.prompt_format.suppress_tokens,
            self.limits.prefill_tokens,
            self.prefix_cache,
        )

    def fail(self, job: TextJob, error: Exception) -> None:
        """End a text with an error."""
        self.engine.cancel(self.remove(job))
        self.count("failed", ended=True)
        self.hand_over(job.deliver, error)

    def end_vectors(self, job: VectorJob, error: Exception | None) -> None:
        """Deliver the vectors of a request, or its error."""
        if error is not None:
            log.error("vectors of the model %s failed: %s", self.served.name, error)
        self.count("finished" if error is None else "failed", ended=True)
        self.hand_over(job.deliver, np.stack(job.found) if error is None else error)

    def remove(self, job: TextJob) -> int:
        """Remove a text and return its number in the engine."""
        assert job.number is not None, "the engine has numbered it"
        del self.jobs[job.number]
        return job.number

    def count(self, name: str, number: int = 1, *, ended: bool = False) -> None:
        """Add to a count; `ended`: a request has ended."""
        with self.changed:
            self.counts[name] += number
            if ended:
                self.n_unfinished -= 1
                self.changed.notify_all()

    @staticmethod
    def hand_over(deliver: Callable[[Any], None], value: Any) -> bool:
        """Deliver a value and return whether this succeeded. A receiver that fails, such as one with a closed event
        loop, ends only its own request.
        """
        try:
            deliver(value)
        except Exception:
            log.exception("an event could not be delivered")
            return False
        return True
