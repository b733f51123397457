"""What was once saved opens for ever, and answers what it answered then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from make import HERE, MODELS, TEXT, answers, expected, main
from safetensors.torch import load_file

from clearstory.formats.folders import open_model
from clearstory.formats.hf.decoders import ARCHITECTURES
from clearstory.formats.hf.encoders import ENCODERS


@pytest.mark.parametrize("name", MODELS)
def test_it_opens_and_gives_the_numbers_it_was_saved_with(name: str) -> None:
    if name.endswith(".gguf"):
        pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")
    opened = open_model(HERE / name)
    found, wanted = answers(opened), load_file(expected(HERE / name))
    assert found.keys() == wanted.keys()
    assert torch.equal(found["ids"], wanted["ids"])
    for what in found.keys() - {"ids"}:
        torch.testing.assert_close(found[what], wanted[what], rtol=0, atol=1e-5 * float(wanted[what].abs().max()))


def test_every_class_that_is_written_is_here() -> None:
    # A model with a head for spans is opened without it, and saved as a BertModel.
    written = {form.name for form in ARCHITECTURES.values() if form.omission_note is None}
    assert written <= set(MODELS)
    assert {form.name for form in ENCODERS} - written == {"BertForQuestionAnswering"}
    for name in MODELS:
        assert (HERE / name).exists()
        assert expected(HERE / name).is_file()
        opened = open_model(HERE / name)
        assert opened.tokenizer is not None
        assert opened.tokenizer.encode(TEXT)
        if name in ARCHITECTURES:
            assert json.loads((HERE / name / "config.json").read_text())["architectures"] == [name]


def test_they_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in HERE.rglob("*") if name in file.relative_to(HERE).parts)
        for name in MODELS
    }
    assert max(sizes.values()) < 30_000
    every = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert every < 400_000


def test_the_script_writes_what_is_missing_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("make.MODELS", {name: MODELS[name] for name in ("rnn", "ngram")})
    (tmp_path / "rnn").mkdir()
    said: list[str] = []
    main(tmp_path, said.append)
    assert said == ["rnn: is there and stays as it is", f"ngram: {tmp_path / 'ngram'}"]
    assert not any((tmp_path / "rnn").iterdir())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    main(tmp_path, said.append)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
