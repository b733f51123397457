"""Log-likelihoods of continuations: equal to those computed one by one, whatever is shared between requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, ContextOverflow, VocabularyMismatch
from clearstory.evaluation import continuations
from clearstory.evaluation.continuation_requests import ContinuationRequest, rolling_requests
from clearstory.evaluation.continuations import ContinuationScorer, score_continuations
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import T5_SMALL
from clearstory.text.continuation_encoding import encode_continuation
from tiny import MODELS, TINY_CLEAR, VOCAB, shaken

REQUESTS = [
    ContinuationRequest((1, 2, 3, 4), (5, 6)),
    ContinuationRequest((1, 2, 3, 4), (7,)),
    ContinuationRequest((1, 2, 3, 4), (5, 8, 9)),
    ContinuationRequest((4,), (2, 2)),
    ContinuationRequest((4,), (3,)),
    ContinuationRequest((1, 2, 9), (5, 6, 7, 8)),
]
LONG = tuple(torch.randint(VOCAB, (40,), generator=torch.Generator().manual_seed(3)).tolist())


def one_by_one(model: Any, request: ContinuationRequest) -> tuple[float, bool]:
    """The log-likelihood from the logits of one forward pass over everything."""
    ids = [*request.context, *request.continuation][:-1]
    if model.context is not None:
        ids = ids[-model.context :]
    logits = model.logits(model.forward(TokenBatch(torch.tensor([ids])))[0])[0, -len(request.continuation) :]
    wanted = torch.tensor(request.continuation)
    nats = logits.log_softmax(-1).gather(1, wanted[:, None]).double().sum()
    return float(nats), bool((logits.argmax(-1) == wanted).all())


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_each_request_alone(name: str) -> None:
    model = MODELS[name]().requires_grad_(False)
    best = max(range(VOCAB), key=lambda id: one_by_one(model, ContinuationRequest((1, 2, 3, 4), (id,)))[0])
    requests = [*REQUESTS, ContinuationRequest((1, 2, 3, 4), (best,)), ContinuationRequest(LONG, (1, 2))]
    found = score_continuations(model, requests)
    for request, score in zip(requests, found, strict=True):
        nats, greedy = one_by_one(model, request)
        assert score.log_likelihood == pytest.approx(nats, abs=1e-9)
        assert (score.tokens, score.is_greedy) == (len(request.continuation), greedy)
    assert found[-2].is_greedy


@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2}, {"sliding_window": 5}, {"norm_first": False, "context": 64}])
@pytest.mark.parametrize("most", [8, 2048])
def test_a_decoder_reads_trees_of_tokens(settings: dict[str, Any], most: int) -> None:
    model: Any = shaken(replace(TINY_CLEAR, **settings)).float().requires_grad_(False)
    requests = [*REQUESTS, ContinuationRequest(LONG, (1, 2))]
    scorer = ContinuationScorer(model, max_batch_tokens=most)
    assert scorer.decoder is not None
    for request, score in zip(requests, scorer.score(requests), strict=True):
        assert score.log_likelihood == pytest.approx(one_by_one(model, request)[0], abs=1e-4)


@pytest.mark.parametrize("name", ["clear", "windowed", "gpt2", "lstm", "ngram", "hmm", "mixture"])
def test_a_long_prefix_is_read_once_and_its_state_branched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuations, "MIN_PREFIX", 6)
    whole = MODELS[name]().requires_grad_(False)
    requests = [ContinuationRequest((*LONG[:9], *own), (5, own[0])) for own in [(1, 2), (1, 3), (4,), (1, 2)]]
    for model in (whole, whole.float()) if name in ("clear", "windowed", "gpt2") else (whole,):
        tolerance = 1e-9 if next(iter(model.parameters()), torch.zeros(1).double()).dtype == torch.float64 else 1e-4
        for request, score in zip(requests, score_continuations(model, requests), strict=True):
            assert score.log_likelihood == pytest.approx(one_by_one(model, request)[0], abs=tolerance)


def test_an_encoder_decoder_predicts_continuations_of_sources() -> None:
    small = replace(T5_SMALL, vocab=32, width=16, heads=2, kv_heads=2, head_dim=8, intermediate_size=32, layers=1)
    model: Any = build(small, seed=1).double().eval().requires_grad_(False)
    found = score_continuations(model, REQUESTS, start_token_id=0)
    for request, score in zip(REQUESTS, found, strict=True):
        ids = [0, *request.continuation[:-1]]
        source = TokenBatch.from_sequences([request.context])
        hidden, _ = model.forward(TokenBatch.from_sequences([ids]), source=source)
        logs = model.logits(hidden)[0].log_softmax(-1)
        nats = logs.gather(1, torch.tensor(request.continuation)[:, None]).sum()
        assert score.log_likelihood == pytest.approx(float(nats), abs=1e-9)


def test_rolling_windows_predict_each_token_once_with_a_full_context() -> None:
    requests = rolling_requests(list(range(1, 11)), 0, 4)
    assert [(each.context, each.continuation) for each in requests] == [
        ((0,), (1, 2, 3, 4)),
        ((4,), (5, 6, 7, 8)),
        ((6, 7, 8), (9, 10)),  # inputs 6 7 8 9
    ]
    assert rolling_requests([1, 2, 3], 0, None) == [ContinuationRequest((0,), (1, 2, 3))]
    assert rolling_requests([1, 2, 3], None, None) == [ContinuationRequest((1,), (2, 3))]
    assert rolling_requests([], None, 4) == []


def test_white_space_at_the_end_of_a_context_belongs_to_the_continuation() -> None:
    def encode(text: str) -> list[str]:
        return [text[at : at + 2] for at in range(0, len(text), 2)]

    assert encode_continuation("ab  ", "cd", encode, encode, 9) == (["ab"], ["  ", "cd"])
    assert encode_continuation("", "cd", encode, encode, 9) == ([9], ["cd"])
    assert encode_continuation("", "cd", encode, encode, None) == (["cd"], [])


def test_what_has_no_likelihood_is_refused() -> None:
    model: Any = shaken(TINY_CLEAR)
    with pytest.raises(BadInput, match="a continuation of 0 tokens after 1"):
        score_continuations(model, [ContinuationRequest((1,), ())])
    with pytest.raises(ContextOverflow, match=r"25 tokens does not fit the model's context of 24"):
        score_continuations(model, [ContinuationRequest((1,), (1,) * 25)])
    with pytest.raises(VocabularyMismatch, match="token id 23"):
        score_continuations(model, [ContinuationRequest((1,), (23,))])
