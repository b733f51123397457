"""Training on all of the text: --data.validation 0 keeps the last weights of any model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.errors import BadSetting
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.events import Evaluated, ModelSaved, RunPlanned, RunPrepared, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.text.token_dataset import encode_text

LINES = "the cat sat on the mat .\nthe dog sat on the log .\na cat and a dog sat .\n"

MODELS: dict[str, dict[str, Any]] = {
    "ngram": {"model": {"name": "ngram", "order": 3}},
    "hmm": {"model": {"name": "hmm", "states": 3}, "steps": 4},
    "gru": {
        "model": {"name": "gru", "width": 8, "hidden_size": 8, "layers": 1},
        "steps": 4,
        "training": {"batch_size": 2, "context": 8, "eval_steps": 2},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "lines.txt"
    file.write_text(LINES, encoding="utf-8")
    return file


def settings(file: Path, name: str, validation: float, **more: Any) -> dict[str, Any]:
    data = {"validation": validation, "cache": file.parent / "cache"}
    return {"text": (str(file),), "tokenizer": "words", "data": data, "out": file.parent / name, **MODELS[name], **more}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_on_all_of_the_text(file: Path, name: str) -> None:
    events = list(train_events(build_train_recipe(settings(file, name, 0))))
    prepared, result = events[0], events[-1]
    assert isinstance(prepared, RunPrepared)
    assert isinstance(result, TrainingResult)
    assert (prepared.tokens, prepared.validation_tokens) == (24, 0)  # 21 words and 3 line ends
    assert "last weights are kept" in (prepared.note or "")
    assert (result.bits_per_byte, result.nats_per_token, result.curve) == (None, None, None)
    assert "the whole text" in result.summary
    assert not any(isinstance(event, Evaluated) for event in events)
    assert [event.step for event in events if isinstance(event, ModelSaved) and event.kind == "model"][
        -1
    ] == result.steps
    last = json.loads((result.run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (last["kind"], last["nats_per_token"]) == ("end", None)
    opened = clearstory.open(result.run_folder)  # type: ignore[attr-defined]
    assert clearstory.evaluate(opened, texts=[LINES]).score.tokens == 24


def test_a_model_that_counts_says_what_was_held_out_and_no_precision(file: Path) -> None:
    prepared, planned, *_ = train_events(build_train_recipe(settings(file, "ngram", 0.3)))
    assert isinstance(prepared, RunPrepared)
    assert isinstance(planned, RunPlanned)
    assert "of counting" in planned.message
    assert " on cpu with " in planned.message
    assert "fp32" not in planned.message
    held_out = f"{prepared.validation_tokens:,} of {prepared.tokens + prepared.validation_tokens:,} tokens are held out"
    assert held_out in (prepared.note or "")
    assert "--data.validation 0" in (prepared.note or "")


def test_an_n_gram_counts_the_whole_text(file: Path) -> None:
    whole = clearstory.train(**settings(file, "ngram", 0))
    opened = clearstory.open(whole.run_folder)  # type: ignore[attr-defined]
    counts = opened.model.table(1).counts.tolist()
    dataset = encode_text(opened.tokenizer, [LINES])
    assert counts == [int((dataset.ids == id).sum()) for id in range(opened.tokenizer.vocab)]


def test_what_needs_validation_text_is_refused_without_it(file: Path) -> None:
    recipe = build_train_recipe(settings(file, "gru", 0))
    recipe = replace(recipe, training=replace(recipe.training, patience=2))
    with pytest.raises(BadSetting, match=r"training.patience is 2 and data.validation 0"):
        list(train_events(recipe))
    assert not (file.parent / "gru").exists()
