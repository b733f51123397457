"""Saving and opening model folders, and paths that refer to them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clearstory.errors import (
    BadInput,
    CannotDo,
    CorruptFile,
    FolderExists,
    VocabularyMismatch,
)
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.train_tokenizer import train_tokenizer

GPT2 = TransformerConfig(vocab=19, context=12, width=8, layers=2, heads=4, kv_heads=4, head_dim=2, intermediate_size=12)
LLAMA = replace(GPT2, norm="rms", positions="rotary", gated=True, bias=False, activation="silu")
NATIVE = replace(GPT2, positions="none")


def saved(tmp_path: Path, config: TransformerConfig = GPT2) -> Path:
    folder = save_model(tmp_path / "model", build(config, seed=0), None, ModelCard())
    (folder / "checksums.json").unlink()  # as a folder of another program
    return folder


def drop(folder: Path, key: str) -> None:
    file = folder / "config.json"
    said = json.loads(file.read_text())
    del said[key]
    file.write_text(json.dumps(said))


def test_a_tokenizer_may_have_fewer_tokens_than_its_model_but_not_more(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = build(replace(GPT2, vocab=tokenizer.vocab + 7))
    save_model(tmp_path / "fits", model, tokenizer, ModelCard())
    small = build(replace(GPT2, vocab=tokenizer.vocab - 1))
    with pytest.raises(VocabularyMismatch, match="the model has a vocabulary of 256 tokens, the tokenizer one of 257"):
        save_model(tmp_path / "small", small, tokenizer, ModelCard())
    assert not (tmp_path / "small").exists()
    folder = save_model(tmp_path / "small", small, None, ModelCard())
    tokenizer.save(folder)
    with pytest.raises(VocabularyMismatch, match="the model has a vocabulary of 256 tokens"):
        open_model(folder)


def test_paths_without_a_model_give_different_messages(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (tmp_path / "empty").mkdir()
    sentences = {
        tmp_path / "modle": r"there is no folder .*modle; did you mean 'model'\?",
        tmp_path / "no" / "where": r"does not exist either",
        folder / "config.json": r"is a file of a model folder; open the folder",
        tmp_path / "empty": "has no config.json",
    }
    for path, sentence in sentences.items():
        with pytest.raises(BadInput, match=sentence):
            open_model(path)
    (tmp_path / "x.onnx").write_bytes(b"ONNX")
    with pytest.raises(BadInput, match=r"is not a model; supported: folders, \.arpa"):
        open_model(tmp_path / "x.onnx")
    run = tmp_path / "run"
    (run / "checkpoints" / "step-000500").mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    with pytest.raises(BadInput, match="has saved no model yet"):
        open_model(run)
    with pytest.raises(CannotDo, match="is a checkpoint for resuming a run"):
        open_model(run / "checkpoints" / "step-000500")
    folder.rename(run / "model")
    assert open_model(run).model.config == GPT2
    # A writer that was killed between two renames.
    (run / "model").rename(run / ".model.clearstory-old")
    assert open_model(run / "model").model.config == GPT2


def test_a_folder_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    with pytest.raises(FolderExists, match="exists already"):
        save_model(folder, build(LLAMA), None, ModelCard())
    save_model(folder, build(LLAMA), None, ModelCard(), overwrite=True)
    assert open_model(folder).model.config == LLAMA
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_does_not_read_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearstory.formats.hf import safetensors_io

    folder = saved(tmp_path)
    before = (folder / "model.safetensors").read_bytes()

    def badly(tensors: dict[str, torch.Tensor], file: Path, metadata: Any) -> None:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, metadata)

    monkeypatch.setattr(safetensors_io, "save_file", badly)
    with pytest.raises(CorruptFile, match="differs from what was written"):
        save_model(folder, build(GPT2), None, ModelCard(), overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_logits_need_sequences_of_equal_length(tmp_path: Path) -> None:
    opened = open_model(saved(tmp_path))
    assert opened.logits([[1, 2, 3], [4, 5, 6]]).shape == (2, 3, 19)
    assert opened.logits(torch.tensor([[1, 2]], dtype=torch.int32)).shape == (1, 2, 19)
    for ids, sentence in [
        ([[1, 2], [3]], "sequences of 1 and 2 tokens"),
        *([([1, 2, 3], r"\[\[1, 2, 3\]\]")] if os.environ.get("CLEARSTORY_CHECK_SHAPES") != "1" else []),
        (torch.ones(2, 2), "dtype torch.float32"),
        (torch.ones(2, dtype=torch.long), r"shape \[2\]"),
        ([[]], r"shape \[1, 0\]"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            opened.logits(ids)
    for wrong in ([[19]], [[-1]]):
        with pytest.raises(VocabularyMismatch):
            opened.logits(wrong)


def test_the_model_card_is_stored_and_readable(tmp_path: Path) -> None:
    card = ModelCard(name="my | model", trained_on=(("a `b`.txt", 1_234_567), ("größe", 9)), bits_per_byte=1.25)
    folder = save_model(tmp_path / "model", build(GPT2), None, card)
    count = sum(weight.numel() for weight in build(GPT2).parameters())
    assert open_model(folder).card == replace(card, parameters=count)
    text = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("# my / model", "1,234,567 bytes", "1.2500", f"{count:,}", "GPT2LMHeadModel", "clearstory generate"):
        assert part in text
    text = (save_model(tmp_path / "own", build(NATIVE), None, ModelCard()) / "README.md").read_text()
    assert "No class of transformers can represent this model" in text
    # A folder of others has no card; its name and its size are known all the same.
    (folder / "checksums.json").unlink()
    drop(folder, "clearstory")
    assert open_model(folder).card == ModelCard(name="model", parameters=count)


def test_a_config_of_no_family_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="is not a config of a model family"):
        save_model(tmp_path / "model", torch.nn.Linear(2, 2), None, ModelCard())
