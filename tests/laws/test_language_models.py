"""Laws of prediction: numbers of every language model, and of generation and scoring with it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from clearstory.errors import ClearstoryError
from clearstory.evaluation.windows import score_dataset
from clearstory.generation.beam_search import beam_search
from clearstory.generation.engine import Engine, Token, generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from tiny import MODELS, VOCAB

IDS = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]().requires_grad_(False)


def rows(*documents: list[int]) -> Any:
    starts = np.cumsum([0, *map(len, documents)])
    lengths = np.arange(VOCAB) % 4  # some ids have no bytes
    ids = np.array([id for document in documents for id in document], np.uint16)
    sizes = [int(lengths[document].sum()) for document in documents]
    return SimpleNamespace(ids=ids, starts=starts, byte_lengths=lengths, document_bytes=sizes)


def test_probabilities_sum_to_one(model: Any) -> None:
    logits = model.logits(model.forward(TokenBatch(IDS))[0])
    assert logits.shape == (3, 20, VOCAB)
    assert_close(logits.softmax(-1).sum(-1), torch.ones(3, 20, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_token_nll_is_the_log_softmax_of_the_logits(model: Any) -> None:
    targets = IDS.roll(-1, 1).clone()
    targets[1, 5:9] = IGNORE_INDEX
    logs = model.logits(model.forward(TokenBatch(IDS))[0]).log_softmax(-1)
    wanted = -logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets != IGNORE_INDEX)
    nats, _ = model.token_nll(TokenBatch(IDS), targets)
    assert_close(nats, wanted, rtol=1e-9, atol=1e-9)
    first, state = model.token_nll(TokenBatch(IDS[:, :8]), targets[:, :8], model.init_state(3))
    second, _ = model.token_nll(TokenBatch(IDS[:, 8:]), targets[:, 8:], state)
    assert_close(torch.cat([first, second], 1), wanted, rtol=1e-9, atol=1e-9)


def by_hand(model: Any, prompt: list[int], count: int) -> list[int]:
    """Greedy without a state: everything is processed anew for each token."""
    ids, start = list(prompt), 0
    for _ in range(count):
        if model.context is not None and len(ids) - start > model.context:
            start = len(ids) - model.context // 2
        logits = model.logits(model.forward(TokenBatch(torch.tensor([ids[start:]])))[0])
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_takes_the_most_likely_token_even_beyond_the_context(model: Any) -> None:
    prompt = [3, 1, 4]
    tokens = list(generate(model, prompt, Sampling(max_tokens=40, temperature=0)))
    assert [token.id for token in tokens] == by_hand(model, prompt, 40)
    full = IDS.flatten()[: model.context or 24].tolist()
    assert [t.id for t in generate(model, full, Sampling(max_tokens=3, temperature=0))] == by_hand(model, full, 3)


def test_logprobs_are_the_models_own(model: Any) -> None:
    settings = Sampling(max_tokens=5, temperature=0.5, top_k=3, repetition_penalty=1.3, seed=2)
    tokens = list(generate(model, [3, 1, 4], settings))
    ids = [3, 1, 4] + [token.id for token in tokens]
    logs = model.logits(model.forward(TokenBatch(torch.tensor([ids])))[0]).log_softmax(-1)[0]
    for place, token in enumerate(tokens):
        assert token.logprob == pytest.approx(float(logs[place + 2, token.id]), rel=1e-9, abs=1e-9)


REQUESTS = [
    ([3, 1, 4], Sampling(max_tokens=28, temperature=0)),
    ([1], Sampling(max_tokens=20, temperature=0.9, seed=1)),
    ([5] * 20, Sampling(max_tokens=12, top_p=0.8, seed=2)),
    ([2, 7], Sampling(max_tokens=1, top_k=4, seed=3)),
    ([9, 9, 8], Sampling(max_tokens=9, min_p=0.1, repetition_penalty=1.2, seed=4)),
]


def test_an_engine_generates_the_same_alone_or_in_a_batch(model: Any) -> None:
    alone = [list(generate(model, prompt, sampling)) for prompt, sampling in REQUESTS]
    for limit in (1, 3, 64):
        engine = Engine(model, max_running=limit)
        answers: dict[int, list[Token]] = {}
        late = list(REQUESTS)
        for _ in range(120):
            # They arrive one at a time, while others are running.
            if late:
                answers[engine.add(*late.pop(0))] = []
            for reply in engine.next_tokens():
                answers[reply.request].append(reply.token)
                assert (reply.finished == "length") == (
                    len(answers[reply.request]) == REQUESTS[reply.request][1].max_tokens
                )
        assert not engine.has_unfinished
        for number, tokens in enumerate(alone):
            assert [token.id for token in answers[number]] == [token.id for token in tokens]
            assert_close([t.logprob for t in answers[number]], [t.logprob for t in tokens], rtol=1e-9, atol=1e-9)


def test_a_cancelled_request_leaves_the_others_alone(model: Any) -> None:
    engine = Engine(model)
    numbers = [engine.add(*request) for request in REQUESTS]
    engine.next_tokens()
    engine.cancel(numbers[1])
    seen = set()
    while engine.has_unfinished:
        seen |= {reply.request for reply in engine.next_tokens()}
    assert seen == {0, 2, 4}


def test_a_seed_repeats_and_another_differs(model: Any) -> None:
    def ids(seed: int | None) -> list[int]:
        return [token.id for token in generate(model, [1, 2], Sampling(max_tokens=12, seed=seed))]

    assert ids(5) == ids(5)
    assert ids(5) != ids(6)
    assert ids(None) != ids(None)


def test_the_end_token_ends_and_is_the_last(model: Any) -> None:
    free = [token.id for token in generate(model, [1, 2], Sampling(max_tokens=30, seed=5))]
    eos = free[10]
    stopped = [token.id for token in generate(model, [1, 2], Sampling(max_tokens=30, seed=5), eos_token_id=eos)]
    assert stopped == free[: free.index(eos) + 1]


def test_a_beam_of_one_is_greedy(model: Any) -> None:
    greedy = Sampling(max_tokens=30, temperature=0)
    tokens = [token.id for token in generate(model, [3, 1], greedy)]
    for eos in (None, tokens[12]):
        want = list(generate(model, [3, 1], greedy, eos_token_id=eos))
        [found] = beam_search(model, [3, 1], replace(greedy, beam=1), eos_token_id=eos)
        assert list(found.ids) == [token.id for token in want]
        assert_close(list(found.logprobs), [token.logprob for token in want], rtol=1e-9, atol=1e-9)
        assert found.score == pytest.approx(sum(found.logprobs) / len(found.ids))


def test_a_beam_wide_enough_finds_the_best(model: Any) -> None:
    """Two tokens: all VOCAB² continuations are enumerated."""
    first = model.logits(model.forward(TokenBatch(torch.tensor([[3, 1]])))[0])[0, -1].log_softmax(-1)
    pairs = torch.tensor([[3, 1, id] for id in range(VOCAB)])
    totals = first[:, None] + model.logits(model.forward(TokenBatch(pairs))[0])[:, -1].log_softmax(-1)
    found = beam_search(model, [3, 1], Sampling(max_tokens=2, beam=VOCAB))
    assert len(found) == VOCAB
    best, places = totals.flatten().topk(3)
    assert_close([each.score * 2 for each in found[:3]], best.tolist(), rtol=1e-9, atol=1e-9)
    assert [each.ids for each in found[:3]] == [divmod(place, VOCAB) for place in places.tolist()]


def test_blocks_are_scored_as_by_hand(model: Any) -> None:
    ids = IDS.flatten().tolist()  # 60 tokens, 59 targets: blocks of 8 and a last one of 3
    nats = 0.0
    for start in range(0, 59, 8):
        inputs, targets = ids[start : start + 8], ids[start + 1 : start + 9]
        logs = model.logits(model.forward(TokenBatch(torch.tensor([inputs[: len(targets)]])))[0]).log_softmax(-1)[0]
        nats -= sum(float(logs[t, id]) for t, id in enumerate(targets))
    for batch_size in (1, 3, 100):
        score = score_dataset(model, rows(ids), context=8, windows="blocks", batch_size=batch_size)
        assert score.nats == pytest.approx(nats, rel=1e-9)
        assert (score.tokens, score.bytes) == (59, sum(id % 4 for id in ids[1:]))
    assert score_dataset(model, rows(ids), context=8, stride=8) == pytest.approx(score)


def test_strided_windows_score_every_token_once_with_more_context(model: Any) -> None:
    ids = IDS.flatten().tolist()
    context, stride, nats = 8, 3, 0.0
    for place in range(1, 60):
        # The first window that reaches this token: end = context + k stride.
        window = max(0, -(-(place - context) // stride))
        inputs = ids[window * stride : place]
        hidden, _ = model.forward(TokenBatch(torch.tensor([inputs])))
        nats -= float(model.logits(hidden)[0, -1].log_softmax(-1)[ids[place]])
    score = score_dataset(model, rows(ids), context=context, stride=stride)
    assert score.nats == pytest.approx(nats, rel=1e-9)
    assert score.tokens == 59


def test_documents_never_see_each_other(model: Any) -> None:
    documents = [IDS[0].tolist(), [5], IDS[1, :7].tolist(), [], IDS[2].tolist() * 3]
    for begin in (None, 2):
        apart = [score_dataset(model, rows(document), start_token_id=begin, batch_size=2) for document in documents]
        together = score_dataset(model, rows(*documents), start_token_id=begin, batch_size=2)
        assert together.nats == pytest.approx(sum(score.nats for score in apart), rel=1e-9)
        assert together.tokens == sum(score.tokens for score in apart)
        assert together.bytes == sum(score.bytes or 0 for score in apart)
    count = sum(map(len, documents))
    assert together.tokens == count  # with a start token, every token is predicted


def test_a_limit_stops_at_the_end_of_a_window(model: Any) -> None:
    ids = IDS.flatten().tolist()
    score = score_dataset(model, rows(ids), context=8, windows="blocks", limit=20)
    assert score.tokens == 24
    assert score.nats == pytest.approx(score_dataset(model, rows(ids[:25]), context=8, windows="blocks").nats)


@pytest.mark.parametrize(
    "bad",
    [
        {"stride": 0},
        {"context": 8, "stride": 9},
        {"context": 25},
        {"context": 0},
        {"windows": "blocks", "context": 8, "stride": 4},
        {"batch_size": 0},
    ],
)
def test_invalid_windows_are_refused(model: Any, bad: dict[str, Any]) -> None:
    if model.context is None and bad == {"context": 25}:
        pytest.skip("a model that never forgets reads windows of any length")
    with pytest.raises(ClearstoryError):
        score_dataset(model, rows([1, 2, 3]), **bad)
