"""Prefill: prompts in chunks, shared beginnings, and a request's numbers, which depend on neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, VocabularyMismatch
from clearstory.generation.engine import Engine, Token, generate
from clearstory.generation.prefix_cache import Prefix, PrefixCache, PrefixDigest
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from tiny import TINY_CLEAR, TINY_GPT2, TINY_HMM, TINY_LSTM, TINY_NGRAM, TINY_RECALL, fitted, shaken

CONTEXT = 200
GREEDY = Sampling(max_tokens=5, temperature=0)


def packed(config: Any, precision: Any) -> Any:
    return inference_model(build(config, seed=1).eval(), precision, 8)


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: shaken(replace(TINY_GPT2, context=CONTEXT)),
    "window": lambda: shaken(replace(TINY_CLEAR, context=CONTEXT, sliding_window=50)),
    "recall": lambda: shaken(replace(TINY_RECALL, context=CONTEXT)),
    "lstm": lambda: shaken(TINY_LSTM),
    "hmm": lambda: shaken(TINY_HMM),
    "ngram": lambda: fitted(TINY_NGRAM),
    "fp32": lambda: packed(replace(TINY_CLEAR, context=CONTEXT, kv_heads=2), "fp32"),
    "int8": lambda: packed(replace(TINY_CLEAR, context=CONTEXT, width=32, head_dim=8, sliding_window=40), "int8"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(23, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


SHARED = prompt(160)
PROMPTS = [
    [*SHARED, *prompt(20, 1)],
    prompt(7, 2),
    [*SHARED[:128], *prompt(3, 3)],
    prompt(129, 4),
    SHARED[:128],
    [*SHARED, *prompt(20, 1)],
    prompt(1, 5),
    prompt(97, 6),
]
REQUESTS = [
    (ids, Sampling(max_tokens=3 + number % 3, temperature=number % 2, seed=number))
    for number, ids in enumerate(PROMPTS)
]


def run(engine: Engine, requests: Sequence[Any], aborted: Sequence[int] = (), **options: Any) -> dict[int, list[Token]]:
    """All tokens of requests that arrive one a step; each third step one of `aborted` is cancelled."""
    found: dict[int, list[Token]] = {}
    late, aborted = list(requests), list(aborted)
    for step in range(2000):
        if late:
            found[engine.add(*late.pop(0), **options)] = []
        if step % 3 == 2 and aborted:
            engine.cancel(aborted.pop(0))
        for output in engine.next_tokens():
            found[output.request].append(output.token)
        if not late and not engine.has_unfinished:
            return found
    raise AssertionError("the engine does not end")


def test_alone_batched_chunked_shared_and_after_aborts_are_the_same(model: Any) -> None:
    alone = [list(generate(model, *request)) for request in REQUESTS]
    cache = PrefixCache(2**24)
    engines = {
        "batched": Engine(model),
        "chunked": Engine(model, prefill_tokens=32),
        "shared": Engine(model, prefill_tokens=64, prefix_cache=cache),
        "aborted": Engine(model, max_running=3, prefix_cache=cache),  # which has the prompts of the last
    }
    for name, engine in engines.items():
        gone = [0, 5, 7] if name == "aborted" else []
        found = run(engine, REQUESTS, gone)
        for number, tokens in enumerate(alone):
            if number in gone:
                continue
            assert [token.id for token in found[number]] == [token.id for token in tokens], (name, number)
            for token, own in zip(found[number], tokens, strict=True):
                assert token.logprob == pytest.approx(own.logprob, abs=1e-4), (name, number)


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_numbers_do_not_depend_on_chunks_or_other_requests(name: str) -> None:
    from clearstory.models.native.library import load_library

    if load_library() is None:
        pytest.skip("there are no compiled kernels here, and those of PyTorch sum in an order of their own")
    model = MODELS[name]()
    alone = [list(generate(model, *request)) for request in REQUESTS]
    for tokens in (32, 64, 160, None):
        cache = PrefixCache(2**24) if tokens != 64 else None
        found = run(Engine(model, prefill_tokens=tokens, prefix_cache=cache), REQUESTS)
        assert list(found.values()) == alone  # log-probabilities to the bit


def test_a_shared_prompt_is_read_once() -> None:
    model = shaken(replace(TINY_CLEAR, context=600))
    shared, n_read = prompt(512), 0
    forward = model.forward

    def counting(tokens: TokenBatch, state: Any = None) -> Any:
        nonlocal n_read
        n_read += int(tokens.lengths.sum()) if tokens.lengths is not None else tokens.ids.numel()
        return forward(tokens, state)

    model.forward = counting
    engine = Engine(model, prefill_tokens=128, prefix_cache=PrefixCache(2**30))
    for number in range(16):
        engine.add([*shared, number], replace(GREEDY, max_tokens=1))
    outputs = []
    while engine.has_unfinished:
        outputs += engine.next_tokens()
    assert n_read == 512 + 16
    cached = [output.prompt.n_cached for output in outputs if output.prompt is not None]
    assert sorted(cached) == [0, *[512] * 15]
    engine.add(shared, replace(GREEDY, max_tokens=1))  # nothing is left to read
    [output] = engine.next_tokens()
    assert n_read == 512 + 16
    assert output.token == next(generate(model, shared, replace(GREEDY, max_tokens=1)))


def test_requests_that_have_read_different_lengths_of_one_prompt_go_on_alone() -> None:
    model = shaken(replace(TINY_CLEAR, context=200))
    engine = Engine(model, prefill_tokens=32)
    first = engine.add(prompt(90), GREEDY)
    engine.next_tokens()  # 32 tokens of the first are read
    engine.prefill_tokens = 128
    second = engine.add(prompt(90), GREEDY)  # its next chunk ends where that of the first does
    found: dict[int, list[int]] = {first: [], second: []}
    while engine.has_unfinished:
        for output in engine.next_tokens():
            found[output.request].append(output.token.id)
    expected = [token.id for token in generate(model, prompt(90), GREEDY)]
    assert found[first] == found[second] == expected


def test_a_long_prompt_does_not_stop_running_requests() -> None:
    engine = Engine(shaken(replace(TINY_CLEAR, context=400)), prefill_tokens=32)
    running = engine.add([1, 2, 3], replace(GREEDY, max_tokens=60))
    engine.next_tokens()
    engine.add(prompt(330), GREEDY)
    engine.add(prompt(331, 1), GREEDY)
    engine.next_tokens()
    short = engine.add([5, 6], GREEDY)
    seen = [[output.request for output in engine.next_tokens()] for _ in range(30)]
    assert all(running in outputs for outputs in seen)  # a token in each step
    assert short in seen[0] + seen[1]  # and short prompts overtake long ones
    assert {1, 2} <= {request for outputs in seen for request in outputs}


def test_memory_of_prefixes_is_bounded_and_the_least_recently_used_go_first() -> None:
    model = shaken(TINY_CLEAR)
    cache = PrefixCache(1)
    prefix = Prefix(model.init_state(1), torch.zeros(16, dtype=torch.float64))
    cache.prefix_bytes, cache.max_bytes = 10, 35
    keys = [PrefixDigest.of_source([]).extended([id]) for id in range(4)]
    longer = keys[0].marked().extended([7])
    for key in keys[:3]:
        cache.put(key, prefix)
    assert cache.get(keys[0]) is prefix
    cache.put(longer, prefix)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, False]
    cache.put(keys[3], prefix)  # what continues a beginning goes before it
    assert cache.get(longer) is None
    assert cache.get(keys[0]) is prefix
    assert len(cache.prefixes) == 3


def test_prompt_log_probabilities_are_those_of_the_model(model: Any) -> None:
    engine = Engine(model, prefill_tokens=64, prefix_cache=PrefixCache(2**24))
    for ids in (PROMPTS[0], PROMPTS[2]):
        engine.add(ids, GREEDY, prompt_logprobs=3, top_logprobs=4)
    engine.add(PROMPTS[6], GREEDY, prompt_logprobs=0)
    first = {}
    while engine.has_unfinished:
        for output in engine.next_tokens():
            if output.prompt is not None:
                first[output.request] = output
            assert output.token.top[: output.request < 2] in ((), ((output.token.id, output.token.logprob),))
    for number, ids in enumerate((PROMPTS[0], PROMPTS[2])):
        tokens = torch.tensor([ids])
        nll, _ = model.token_nll(TokenBatch(tokens[:, :-1]), tokens[:, 1:])
        read = first[number].prompt.tokens
        assert [token.id for token in read] == ids[1:]
        torch.testing.assert_close(
            torch.tensor([token.logprob for token in read]).double(), -nll[0].double(), rtol=1e-4, atol=1e-4
        )
        for token in read:
            assert len(token.top) == 3
            assert [value for _, value in token.top] == sorted((value for _, value in token.top), reverse=True)
            assert all(value == token.logprob for id, value in token.top if id == token.id)
    assert first[2].prompt.tokens == ()


def test_a_cancelled_request_frees_its_slot_wherever_it_is() -> None:
    engine = Engine(shaken(replace(TINY_CLEAR, context=400)), max_running=2, prefill_tokens=32)
    running, reading, waiting, last = (
        engine.add(ids, GREEDY) for ids in ([1], prompt(200), prompt(200, 1), [2, 3])
    )  # fmt: skip
    engine.next_tokens()
    assert ([each.request for each in engine.prefill.requests], len(engine.waiting)) == ([reading], 2)
    engine.cancel(waiting)
    engine.cancel(reading)
    engine.cancel(running)
    assert [output.request for output in engine.next_tokens()] == [last]


def test_settings_of_an_engine_are_checked() -> None:
    model = shaken(TINY_CLEAR)
    with pytest.raises(BadSetting, match="prefill_tokens"):
        Engine(model, prefill_tokens=0)
    with pytest.raises(VocabularyMismatch, match=r"logit_bias has token id 23.*from 0 to 22"):
        Engine(model).add([1], Sampling(logit_bias=((23, 1.0),)))
