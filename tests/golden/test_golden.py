"""Golden models open with the outputs they had when they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from make import HERE, MODELS, TEXT, expected_file, main, model_outputs
from safetensors.torch import load_file

from clearstory.errors import ClearstoryError
from clearstory.formats.folders import open_model
from clearstory.formats.hf.config_json import HF_ARCHITECTURES
from clearstory.formats.hf.encoders import ENCODERS

REWRITE = (
    "after an intended change of the format, delete tests/golden/{0} and tests/golden/{0}.expected.safetensors, "
    "then run: python tests/golden/make.py"
)


@pytest.mark.parametrize("name", MODELS)
def test_a_golden_model_opens_with_the_outputs_it_was_saved_with(name: str) -> None:
    if name.endswith(".gguf"):
        pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")
    hint = REWRITE.format(name)
    try:
        outputs = model_outputs(open_model(HERE / name))
    except ClearstoryError as error:
        pytest.fail(f"tests/golden/{name} cannot be opened: {error}; {hint}")
    expected = load_file(expected_file(HERE / name))
    assert outputs.keys() == expected.keys(), hint
    assert torch.equal(outputs["ids"], expected["ids"]), hint
    for key in outputs.keys() - {"ids"}:
        tolerance = 1e-5 * float(expected[key].abs().max())
        torch.testing.assert_close(
            outputs[key], expected[key], rtol=0, atol=tolerance, msg=lambda text: f"{text}\n{hint}"
        )


def test_there_is_a_golden_model_of_every_class_that_is_written() -> None:
    # Opened without their heads, and saved as a BertModel.
    headless = {"BertForQuestionAnswering", "BertForNextSentencePrediction", "BertForMultipleChoice"}
    written = {each.name for each in HF_ARCHITECTURES.values() if each.omission_note is None}
    assert written <= set(MODELS)
    assert {each.name for each in ENCODERS} - written == headless
    for name in MODELS:
        assert (HERE / name).exists(), f"{name} is missing; run: python tests/golden/make.py"
        assert expected_file(HERE / name).is_file(), REWRITE.format(name)
        opened = open_model(HERE / name)
        assert opened.tokenizer is not None
        assert opened.tokenizer.encode(TEXT)
        if name in HF_ARCHITECTURES:
            assert json.loads((HERE / name / "config.json").read_text())["architectures"] == [name]


def test_golden_models_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in HERE.rglob("*") if name in file.relative_to(HERE).parts)
        for name in MODELS
    }
    assert max(sizes.values()) < 30_000
    every = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert every < 13_333 * len(MODELS)


def test_the_script_writes_missing_models_and_changes_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("make.MODELS", {name: MODELS[name] for name in ("rnn", "ngram")})
    (tmp_path / "rnn").mkdir()
    output: list[str] = []
    main(tmp_path, output.append)
    assert output == ["rnn: exists, unchanged", f"ngram: {tmp_path / 'ngram'}"]
    assert not any((tmp_path / "rnn").iterdir())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    main(tmp_path, output.append)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
