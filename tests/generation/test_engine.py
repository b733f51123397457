"""Engine, generate and beam search: what is refused, and what is left unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, BadSetting, ContextOverflow, VocabularyMismatch
from clearstory.generation.beam_search import beam_search
from clearstory.generation.engine import Engine, generate
from clearstory.generation.prefill import PromptChunk, group_by_length
from clearstory.generation.settings import Sampling
from clearstory.models.base import inference_mode
from clearstory.models.build import build
from clearstory.models.prompts import keep_recent_half
from tiny import TINY_CLEAR, TINY_GPT2, TINY_HMM, TINY_LSTM, TINY_RECALL, shaken

GREEDY = Sampling(max_tokens=4, temperature=0)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return shaken(TINY_CLEAR)


def test_a_prompt_longer_than_the_context_names_both_lengths(model: torch.nn.Module) -> None:
    with pytest.raises(ContextOverflow, match=r"25 tokens.*24.*--truncate left"):
        generate(model, [1] * 25, GREEDY)
    with pytest.raises(ContextOverflow):
        beam_search(model, [1] * 25, GREEDY)


def test_a_prompt_cut_on_the_left_keeps_its_end(model: torch.nn.Module) -> None:
    long = [1] * 20 + list(range(10))
    cut = list(generate(model, long, GREEDY, truncate="left"))
    assert cut == list(generate(model, long[-24:], GREEDY))


def test_an_empty_prompt_is_replaced_by_the_start_token(model: torch.nn.Module) -> None:
    assert list(generate(model, [], GREEDY, start_token_id=3)) == list(generate(model, [3], GREEDY))
    with pytest.raises(BadInput, match="empty"):
        generate(model, [], GREEDY)


def test_ids_of_another_vocabulary_are_refused(model: torch.nn.Module) -> None:
    for wrong in (23, -1):
        with pytest.raises(VocabularyMismatch):
            generate(model, [wrong], GREEDY)


def test_an_engine_does_no_beam_search(model: torch.nn.Module) -> None:
    with pytest.raises(BadSetting, match="beam"):
        generate(model, [1], replace(GREEDY, beam=2))
    with pytest.raises(BadSetting):
        Engine(model, max_running=0)


def test_generating_leaves_modes_and_gradients_as_they_were() -> None:
    model = build(replace(TINY_GPT2, dropout=0.5), seed=1)
    model.train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    first = [token.id for token in generate(model, [1, 2], GREEDY)]
    assert first == [token.id for token in generate(model, [1, 2], GREEDY)]  # no dropout in generation
    assert [module.training for module in model.modules()] == modes
    beam_search(model, [1], replace(GREEDY, beam=2))
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(ZeroDivisionError), inference_mode(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes


def test_a_full_context_is_restarted_with_its_last_half() -> None:
    assert list(keep_recent_half(range(100), 24)) == list(range(88, 100))
    assert list(keep_recent_half([1, 2], 1)) == [2]
    model = shaken(replace(TINY_GPT2, context=1))
    assert len(list(generate(model, [1], GREEDY))) == 4


def test_beams_exceed_the_context_too() -> None:
    model = shaken(replace(TINY_GPT2, context=6))
    settings = Sampling(max_tokens=15, beam=3)
    found = beam_search(model, [1, 2], settings)
    assert [len(each.ids) for each in found] == [15, 15, 15]
    assert len({each.ids for each in found}) == 3


def test_a_length_penalty_changes_what_is_best(model: torch.nn.Module) -> None:
    # The likeliest first token ends the text, so one beam is short and the others long.
    [first, *_] = generate(model, [3, 1], GREEDY)
    settings = Sampling(max_tokens=12, beam=4, length_penalty=0.0)
    plain = beam_search(model, [3, 1], settings, eos_token_id=first.id)
    assert plain[0].ids == (first.id,)
    assert [each.score for each in plain] == pytest.approx([sum(each.logprobs) for each in plain])
    weighed = beam_search(model, [3, 1], replace(settings, length_penalty=3.0), eos_token_id=first.id)
    assert len(weighed[0].ids) > 1
    assert [each.score for each in weighed] == pytest.approx(
        [sum(each.logprobs) / len(each.ids) ** 3 for each in weighed]
    )


def test_chunks_of_similar_lengths_are_read_together() -> None:
    chunks = [PromptChunk([1] * length) for length in (3, 20, 4, 21, 4, 10)]
    assert [[chunk.length for chunk in group] for group in group_by_length(chunks)] == [[3], [4, 4], [10], [20, 21]]


@pytest.mark.parametrize("config", [TINY_CLEAR, TINY_RECALL, TINY_LSTM, TINY_HMM])
def test_a_request_goes_on_from_the_state_of_a_finished_one(config: Any) -> None:
    model = shaken(config)
    engine = Engine(model)
    first = engine.add([1, 2, 3], GREEDY, keep_state=True)
    other = engine.add([4, 5], replace(GREEDY, max_tokens=9))
    outputs = [output for _ in range(4) for output in engine.next_tokens()]
    ids = [1, 2, 3, *(output.token.id for output in outputs if output.request == first)]
    state = engine.states[first]
    assert state.lengths == [len(ids) - 1]  # the last token is not read
    more = [*ids, 7, 8]
    again = [engine.add(more, GREEDY, state=state) for _ in range(2)]  # a state is a value: two go on from it
    found: dict[int, list[int]] = {}
    while engine.has_unfinished:
        for output in engine.next_tokens():
            found.setdefault(output.request, []).append(output.token.id)
    expected = [token.id for token in generate(model, more, GREEDY)]
    assert found[again[0]] == found[again[1]] == expected
    early = [output.token.id for output in outputs if output.request == other]
    assert early + found[other] == [token.id for token in generate(model, [4, 5], replace(GREEDY, max_tokens=9))]


def test_a_running_request_has_a_state_unless_all_share_one_cache(model: torch.nn.Module) -> None:
    engine = Engine(model)
    request = engine.add([1, 2, 3], GREEDY)
    engine.next_tokens()
    state = engine.state_of(request)
    assert state is not None
    assert state.lengths == [3]
    shared = Engine(build(TINY_CLEAR, seed=1), _batched=True)
    request = shared.add([1, 2, 3], GREEDY, keep_state=True)
    shared.next_tokens()
    assert shared.state_of(request) is None
    while shared.has_unfinished:
        shared.next_tokens()
    assert not shared.states
