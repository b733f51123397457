"""Decoding layouts of a model: the same results up to rounding, never saved, the model itself unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory.errors import CannotDo
from clearstory.generation.engine import Engine, generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import IGNORE_INDEX, LanguageModel, TokenBatch
from clearstory.models.build import build
from clearstory.models.inference_model import (
    InferenceView,
    inference_model,
    min_steps_for_packing,
    precision_note,
)
from clearstory.models.matmul.fastest_precision import (
    TIMES_FILE,
    decoding_times,
    fastest_precision,
    measure_decoding_times,
)
from clearstory.models.matmul.measurement_cache import Measurement
from clearstory.models.matmul.packed import is_available
from tiny import TINY_CLEAR, TINY_GPT2, TINY_RECALL, TINY_RECALL_SUBWORDS

pytestmark = pytest.mark.usefixtures("kernels_by")

IDS = torch.randint(23, (3, 9), generator=torch.Generator().manual_seed(5))
PRECISIONS = {"fp32": 1e-5, "fp16": 6e-3, "bf16": 0.04, "int8": 0.03, "int4": 0.3}
"""The most that logits differ, as a share of the largest logit: twice what was seen of these models."""
WIRINGS = {
    "gpt2": TINY_GPT2,
    "clear": TINY_CLEAR,
    "untied": replace(TINY_GPT2, tie_embeddings=False),
    "recall": TINY_RECALL,
    "recall for subwords": TINY_RECALL_SUBWORDS,
}


def made(wiring: str, shaken: bool = True) -> Any:
    """A tiny model."""
    model, chance = build(WIRINGS[wiring], seed=3).eval(), torch.Generator().manual_seed(3)
    if shaken:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=chance) * 0.2)
    return model


@pytest.fixture(params=WIRINGS)
def wiring(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference between a layout's logits and the model's, as a share of the largest logit."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_layout_computes_as_its_model(wiring: str, name: Any) -> None:
    if not is_available(name):
        pytest.skip(f"no {name} kernels here")
    tolerance, model = PRECISIONS[name], made(wiring, shaken=name in ("fp32", "fp16"))
    view = inference_model(model, name)
    assert isinstance(view, InferenceView)
    assert isinstance(view, LanguageModel)
    with torch.no_grad():
        for rows in (1, 3):
            whole = model.logits(model.forward(TokenBatch(IDS[:rows]))[0])
            assert off(view.logits(view.forward(TokenBatch(IDS[:rows]))[0]), whole) <= tolerance
            state = view.init_state(rows)
            steps = []
            for place in range(9):
                hidden, state = view.forward(TokenBatch(IDS[:rows, place : place + 1]), state)
                steps.append(view.logits(hidden))
            assert off(torch.cat(steps, 1), whole) <= tolerance
        targets = IDS.roll(-1, 1).clone()
        targets[0, 3] = IGNORE_INDEX
        difference = view.token_nll(TokenBatch(IDS), targets)[0] - model.token_nll(TokenBatch(IDS), targets)[0]
        assert difference.abs().max() <= tolerance * 2 * model.logits(model.forward(TokenBatch(IDS))[0]).abs().max()
        assert difference[0, 3] == 0


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_layout_is_never_saved_and_its_model_unchanged(wiring: str, name: Any) -> None:
    if not is_available(name):
        pytest.skip(f"no {name} kernels here")
    model = made(wiring)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    view: Any = inference_model(model, name)
    with pytest.raises(CannotDo, match="save the original model"):
        view.state_dict()
    list(generate(view, [1, 2], Sampling(max_tokens=5, seed=1)))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in view.parameters())


@pytest.mark.parametrize("name", ["fp16", "int8", "int4"])
def test_greedy_texts_are_the_same_at_any_batch_size(wiring: str, name: Any) -> None:
    if not is_available(name):
        pytest.skip(f"no {name} kernels here")
    view = inference_model(made(wiring), name)
    prompts = [[*IDS[0, : 1 + count % 5].tolist(), count] for count in range(8)]

    def texts(prompts: list[list[int]]) -> list[list[int]]:
        engine = Engine(view)
        numbers = [engine.add(prompt, Sampling(max_tokens=8, temperature=0)) for prompt in prompts]
        found: dict[int, list[int]] = {number: [] for number in numbers}
        while engine.has_unfinished:
            for output in engine.next_tokens():
                found[output.request].append(output.token.id)
        return [found[number] for number in numbers]

    together = texts(prompts)
    assert texts(prompts[:3]) == together[:3]
    assert [texts([prompt])[0] for prompt in prompts] == together


def test_auto_takes_what_is_fastest_here_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("gpt2")
    assert inference_model(model, steps=min_steps_for_packing() - 1) is model
    for fastest in ("fp32", "fp16"):
        if not is_available(fastest):  # type: ignore[arg-type]  # a str
            continue
        monkeypatch.setattr("clearstory.models.inference_model.fastest_precision", lambda fastest=fastest: fastest)
        assert precision_note(inference_model(model)) is None  # a small model is in the cache in fp32
        with monkeypatch.context() as patch:
            patch.setattr("clearstory.models.inference_model.MIN_WEIGHTS_FOR_FP16", 0)
            note = precision_note(inference_model(model))
        assert (note is None) if fastest == "fp32" else (note is not None and "weights are fp16" in note)


def test_the_fastest_precision_is_one_for_all_batch_sizes_and_measured_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = "clearstory.models.matmul.fastest_precision"
    monkeypatch.setattr("clearstory.durable.user_cache_folder", lambda: tmp_path)
    monkeypatch.setattr(f"{module}.is_available", lambda precision: True)
    tables = iter(
        [
            {"1": {"fp32": 20.0, "fp16": 10.0}, "8": {"fp32": 30.0, "fp16": 35.0}},
            {"1": {"fp32": 20.0, "fp16": 19.0}, "8": {"fp32": 30.0, "fp16": 29.0}},
        ]
    )
    monkeypatch.setattr(f"{module}.measure_decoding_times", lambda: Measurement(next(tables), 1.0))
    decoding_times.cache_clear()
    assert fastest_precision() == "fp16"
    decoding_times.cache_clear()
    assert fastest_precision() == "fp16"
    (tmp_path / TIMES_FILE.name).write_text('{"a": 1}')
    decoding_times.cache_clear()
    assert fastest_precision() == "fp32"
    decoding_times.cache_clear()


def test_both_precisions_are_measured_here() -> None:
    if not is_available("fp16"):
        pytest.skip("no fp16 kernels here")
    assert TIMES_FILE.is_table(measure_decoding_times().table)


def test_where_nothing_is_gained_the_model_itself_is_returned(wiring: str) -> None:
    wide = made(wiring).double()
    assert inference_model(wide) is wide
    thing: Any = object()
    assert inference_model(thing) is thing


def test_a_model_without_matrices_cannot_be_packed() -> None:
    thing: Any = object()
    with pytest.raises(CannotDo, match="no matrices"):
        inference_model(thing, "int8")
