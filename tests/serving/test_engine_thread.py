"""The thread of a served model: its texts are those of `generate`, and an error ends the request that made it alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import CannotDo, ContextOverflow, GrammarViolation, Overloaded, VocabularyMismatch
from clearstory.generation.settings import Sampling
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.requests import TextEvent, TextRequest, VectorRequest
from clearstory.serving.served_model import ServedModel

GOLDEN = Path(__file__).parent.parent / "golden"
LIMITS = EngineLimits(threads=1, max_running=4, max_waiting=6, prefill_tokens=32)


@pytest.fixture(scope="module")
def served() -> ServedModel:
    return ServedModel.open(GOLDEN / "GPT2LMHeadModel", "tiny", precision="fp32")


@pytest.fixture
def thread(served: ServedModel) -> Iterator[EngineThread]:
    opened = EngineThread(served, LIMITS)
    yield opened
    opened.stop()
    assert not opened.thread.is_alive()


def request(served: ServedModel, text: str = "the cat", **settings: Any) -> TextRequest:
    """A request for a text after this one, greedy by default."""
    options = {name: settings.pop(name) for name in ("token_mask", "timeout", "top_logprobs") if name in settings}
    sampling = Sampling(**({"temperature": 0, "max_tokens": 8} | settings))
    prompt = served.prompt_format.encode_prompt(served.tokenizer, text)
    return TextRequest(
        prompt=prompt.ids, sampling=sampling, eos_token_ids=served.prompt_format.eos_token_ids, **options
    )


def collect(thread: EngineThread, asked: TextRequest) -> list[TextEvent | Exception]:
    """All events of a request."""
    queue: Queue[TextEvent | Exception] = Queue()
    thread.submit(asked, queue.put)
    found: list[TextEvent | Exception] = []
    while not found or (isinstance(found[-1], TextEvent) and found[-1].finish is None):
        found.append(queue.get(timeout=60))
    return found


def wait_until(condition: Any) -> None:
    """Wait until a condition holds, at most a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_texts_are_those_of_generate(served: ServedModel, thread: EngineThread) -> None:
    for settings in ({}, {"temperature": 1.0, "seed": 3}, {"stop": ("a",), "max_tokens": 30}):
        events = collect(thread, request(served, **settings))
        options = {"temperature": 0, "max_tokens": 8, **settings}
        [expected] = clearstory.generate(served.opened, "the cat", precision="fp32", **options).completions
        assert "".join(event.text for event in events) == expected.text
        assert tuple(event.token.id for event in events) == expected.ids
        assert [event.token.logprob for event in events] == pytest.approx(expected.logprobs, abs=1e-5)
        finish = {"eos": "stop", "stop": "stop", "length": "length"}[expected.finished]
        assert [event.finish for event in events] == [*[None] * (len(events) - 1), finish]
        assert b"".join(event.bytes for event in events).decode(errors="replace").startswith(expected.text)
        assert events[0].prompt.n_tokens == len(request(served).prompt)
        assert all(event.prompt is None for event in events[1:])
    assert thread.drain(timeout=10)
    counts = thread.statistics()
    assert (counts.running, counts.waiting, counts.finished, counts.failed) == (0, 0, 3, 0)


def test_errors_of_a_request_are_delivered_or_raised(served: ServedModel, thread: EngineThread) -> None:
    [error] = collect(thread, TextRequest(prompt=(10**6,), sampling=Sampling()))
    assert isinstance(error, VocabularyMismatch)
    [error] = collect(thread, TextRequest(prompt=(1,) * 1000, sampling=Sampling()))
    assert isinstance(error, ContextOverflow)
    short = EngineThread(served, EngineLimits(threads=1, max_prompt_tokens=3))
    with pytest.raises(ContextOverflow, match="5 tokens; at most 3"):
        short.submit(TextRequest(prompt=(1,) * 5, sampling=Sampling()), print)
    short.stop()
    with pytest.raises(Overloaded, match="shut down"):
        short.submit(TextRequest(prompt=(1,), sampling=Sampling()), print)
    assert isinstance(collect(thread, request(served))[-1], TextEvent)
    assert thread.statistics().failed == 2


def test_an_exception_of_the_model_ends_what_runs_and_the_thread_lives_on(
    served: ServedModel, thread: EngineThread, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()

    def broken(ids: Any) -> Any:
        raise RuntimeError("a kernel failed")

    thread.engine.batch.step = broken
    thread.submit_call(lambda: gate.wait(60), lambda _: None)  # all that follow arrive in one step
    queues: list[Queue[Any]] = [Queue() for _ in range(LIMITS.max_running + 2)]
    for queue in queues:  # two of them wait
        thread.submit(request(served), queue.put)
    gate.set()
    last = []
    for queue in queues:
        event = queue.get(timeout=60)
        while not isinstance(event, Exception) and event.finish is None:
            event = queue.get(timeout=60)
        last.append(event)
    assert [isinstance(event, RuntimeError) for event in last] == [True] * LIMITS.max_running + [False] * 2
    assert "a kernel failed" in caplog.text
    assert thread.engine.batch.step is not broken


class OneToken:
    """A mask that allows one token, as often as it is told to."""

    def __init__(self, id: int, times: int, error: Exception | None = None, vocab: int = 5) -> None:
        self.id, self.left, self.error, self.vocab = id, times, error, vocab

    @property
    def finished(self) -> bool:
        return self.left == 0 and self.error is None

    def allowed(self) -> torch.Tensor:
        if self.left == 0 and self.error is not None:
            raise self.error
        return torch.arange(self.vocab) == self.id

    def advance(self, id: int) -> None:
        assert id == self.id
        self.left -= 1


def test_a_grammar_ends_its_text_and_its_error_ends_no_other(served: ServedModel, thread: EngineThread) -> None:
    events = collect(thread, request(served, token_mask=OneToken(3, 4)))
    assert [(event.token.id, event.finish) for event in events] == [(3, None)] * 3 + [(3, "stop")]
    other: Queue[Any] = Queue()
    thread.submit(request(served, max_tokens=20), other.put)
    events = collect(thread, request(served, token_mask=OneToken(3, 2, ValueError("no such rule"))))
    assert isinstance(events[-1], ValueError)
    [error] = collect(thread, request(served, token_mask=OneToken(7, 1)))  # none of the ids 0 to 4
    assert isinstance(error, GrammarViolation)
    event = other.get(timeout=60)
    while event.finish is None:
        event = other.get(timeout=60)


def test_requests_beyond_the_limits_are_refused_and_late_ones_end(served: ServedModel, thread: EngineThread) -> None:
    gate = Event()
    thread.submit_call(lambda: gate.wait(60), lambda _: None)
    queue: Queue[Any] = Queue()
    for _ in range(LIMITS.max_running + LIMITS.max_waiting - 1):
        thread.submit(request(served), queue.put)
    with pytest.raises(Overloaded, match="10 requests are running or waiting for the model 'tiny'"):
        thread.submit(request(served), queue.put)
    gate.set()
    assert thread.drain(timeout=60)
    late = EngineThread(served, LIMITS)
    [*_, error] = collect(late, request(served, timeout=1e-9))
    assert isinstance(error, Overloaded)
    late.stop()


def test_a_cancelled_request_delivers_nothing_more(served: ServedModel, thread: EngineThread) -> None:
    queue: Queue[TextEvent] = Queue()
    handle = thread.submit(request(served, max_tokens=10_000), queue.put)
    queue.get(timeout=60)
    thread.cancel(handle)
    wait_until(lambda: thread.statistics().cancelled == 1)
    assert not thread.engine.running
    n_events = queue.qsize()
    assert isinstance(collect(thread, request(served))[-1], TextEvent)
    assert queue.qsize() == n_events
    thread.cancel(handle)  # a second time changes nothing
    # A receiver that fails, such as one of a closed event loop, ends its own request.
    thread.submit(request(served), lambda event: 1 / 0)
    wait_until(lambda: thread.statistics().cancelled == 2)


def test_a_thread_that_stops_ends_its_requests_with_an_error(served: ServedModel) -> None:
    thread, queue = EngineThread(served, LIMITS), Queue[Any]()
    thread.submit(request(served, max_tokens=10_000), queue.put)
    queue.get(timeout=60)
    thread.stop()
    last = [queue.get() for _ in range(queue.qsize())][-1]
    assert isinstance(last, Overloaded)
    assert thread.statistics().waiting == thread.statistics().running == 0


def test_vectors_of_several_requests_are_those_of_embed() -> None:
    served = ServedModel.open(GOLDEN / "BertForMaskedLM", "bert")
    assert served.abilities == ("vectors", "masks")
    with pytest.raises(CannotDo, match=r"'bert' \(encoder\) has no text generation; it has: sentence vectors, pred"):
        served.require_text()
    thread, queue = EngineThread(served, LIMITS), Queue[Any]()
    texts = ["the cat", "a dog sat on it", "the", "a mat"]
    inputs = served.vector_inputs()
    gate = Event()
    thread.submit_call(lambda: gate.wait(60), lambda _: None)
    for part in (texts[:1], texts[1:]):
        thread.submit_vectors(VectorRequest(rows=tuple(inputs(part))), queue.put)
    thread.submit_vectors(VectorRequest(rows=((10**6,),), normalize=True), queue.put)
    gate.set()
    found = np.concatenate([queue.get(timeout=60) for _ in range(2)])
    expected = clearstory.embed(GOLDEN / "BertForMaskedLM", texts).vectors
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert isinstance(queue.get(timeout=60), VocabularyMismatch)
    mask = served.tokenizer.display_token(served.tokenizer.mask_token_id)
    thread.submit_call(lambda: served.fill_masks([f"the {mask} sat"], top=2), queue.put)
    assert len(queue.get(timeout=60)[0].masks[0]) == 2
    thread.stop()
