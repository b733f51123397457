"""llama2.c: a published checkpoint generates its reference text; other .bin files are rejected."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ggufs import LLAMA, shaken

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.formats.llama2c import read_llama2c_config, tensor_shapes
from clearstory.formats.model_card import ModelCard
from clearstory.formats.rotary_layout import halves_to_pairs
from clearstory.recipes.inference.generate import generate

TINY = replace(LLAMA, vocab=300, kv_heads=2, tie_embeddings=True)

ROWS = [[1, 5, 9, 200, 7], [1, 2, 3, 4, 299]]


def checkpoint(file: Path, config: Any, *, cut: int = 0) -> Any:
    """Write what llama2.c's export.py writes: a header and weights in Meta's rotary layout, in float32."""
    model = shaken(config)
    state = model.state_dict()
    c = config
    vocab = c.vocab if c.tie_embeddings else -c.vocab
    raw = struct.pack("<7i", c.width, c.intermediate_size, c.layers, c.heads, c.kv_heads, vocab, c.context)
    for name, shape in tensor_shapes(config):
        if name == "angles":
            part = torch.zeros(shape)
        elif name in ("embedding", "norm", "unembedding"):
            part = state[f"{name}.weight"]
        else:
            layers = [state[f"blocks.{layer}.{name}.weight"] for layer in range(c.layers)]
            heads = {"attention.query": c.heads, "attention.key": c.kv_heads}.get(name)
            part = torch.stack([each if heads is None else halves_to_pairs(each, heads) for each in layers])
        assert part.shape == shape
        raw += part.numpy().tobytes()
    file.write_bytes(raw[: len(raw) - cut])
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_gives_its_weights(tied: bool, tmp_path: Path) -> None:
    config = replace(TINY, tie_embeddings=tied)
    model = checkpoint(tmp_path / "model.bin", config)
    opened = open_model(tmp_path / "model.bin")
    assert opened.model.config == config
    assert opened.tokenizer is None
    assert torch.equal(opened.logits(ROWS), OpenedModel(model, None, ModelCard()).logits(ROWS))
    assert open_model(tmp_path / "model.bin", dtype=torch.bfloat16).model.embedding.weight.dtype == torch.bfloat16


def test_stories260k_generates_the_reference_text(data: Path) -> None:
    folder = data / "stories260k"
    opened = open_model(folder / "stories260K.bin")
    assert opened.card.parameters == 260_032
    found = generate(opened, "", max_tokens=200, temperature=0)
    assert found.text + "\n" == (folder / "greedy-200.txt").read_text(encoding="utf-8")
    # Its own program puts the start token before a prompt.
    after_prompt = generate(opened, "Tom and Jane were", max_tokens=12, temperature=0)
    assert after_prompt.text.startswith(" playing in the park.")
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    assert tokenizer.decode(tokenizer.encode("Lily's ball, é!")) == "Lily's ball, é!"
    assert tokenizer.decode_bytes(tokenizer.encode("Lily")) == b"Lily"


@pytest.mark.parametrize("cut", [4, 1000])
def test_a_file_whose_size_does_not_match_its_header_is_rejected(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    checkpoint(file, TINY, cut=cut)
    assert read_llama2c_config(file) is None
    with pytest.raises(BadInput, match=r"is not a llama2\.c checkpoint, and a pickle can run code when it is opened"):
        open_model(file)


@pytest.mark.parametrize("header", [[2**31 - 1] * 7, [0] * 7, [-1] * 7, [64, 1, 1, 7, 7, 9, 9]])
def test_inconsistent_headers_are_rejected(header: list[int], tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(struct.pack("<7i", *header) + bytes(1000))
    with pytest.raises(BadInput, match=r"save_pretrained"):
        open_model(file)
    file.write_bytes(b"PK\3\4")
    with pytest.raises(BadInput, match=r"save_pretrained"):
        open_model(file)


def test_a_tokenizer_of_another_model_or_truncated_is_rejected(data: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "model.bin", TINY)
    shutil.copy(data / "stories260k" / "tok512.bin", tmp_path / "tokenizer.bin")
    with pytest.raises(BadInput, match=r"tokenizer\.bin holds 512 tokens but the model has a vocabulary of 300"):
        open_model(tmp_path / "model.bin")
    raw = (data / "stories260k" / "tok512.bin").read_bytes()
    (tmp_path / "tokenizer.bin").write_bytes(raw[:-3])
    with pytest.raises(CorruptFile, match=r"tokenizer\.bin (is truncated|has a token of)"):
        open_model(tmp_path / "model.bin")
    (tmp_path / "tokenizer.bin").write_bytes(raw[:8] + struct.pack("<i", 2**31 - 1) + raw[12:])
    with pytest.raises(CorruptFile, match="has a token of 2,147,483,647 bytes at byte 8"):
        open_model(tmp_path / "model.bin")
    (tmp_path / "tokenizer.bin").write_bytes(raw[:4] + struct.pack("<fi", 0, 1) + b"\xff")
    with pytest.raises(CorruptFile, match="has a token at byte 12 that is not UTF-8"):
        open_model(tmp_path / "model.bin")
