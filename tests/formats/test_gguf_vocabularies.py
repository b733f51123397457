"""Tokenizers of GGUF files: equal to the reference encodings that llama.cpp keeps of five well-known ones."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearstory.errors import BadInput
from clearstory.formats.folders import open_model
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.tokenizer import gguf_tokenizer_fields, read_gguf_tokenizer
from clearstory.text.tokenizers import Tokenizer

DIVIDER = "\n__ggml_vocab_test__\n"

QUANTIZATION_TYPES = {"gpt-2": "bpe", "mpt": "bpe", "falcon": "bpe", "phi-3": "bpe", "bert-bge": "wordpiece"}


def vocabulary(data: Path, tmp_path: Path, name: str) -> Path:
    """A file of a vocabulary, unpacked."""
    file = tmp_path / f"{name}.gguf"
    file.write_bytes(gzip.decompress((data / "gguf-vocab" / f"ggml-vocab-{name}.gguf.gz").read_bytes()))
    return file


def read(file: Path) -> Tokenizer:
    tokenizer = read_gguf_tokenizer(file, GGUFHeader.read(file).metadata)
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize("name", QUANTIZATION_TYPES)
def test_every_reference_encoding_is_equal(name: str, data: Path, tmp_path: Path) -> None:
    tokenizer = read(vocabulary(data, tmp_path, name))
    folder = data / "gguf-vocab"
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode("utf-8").split(DIVIDER)
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text(encoding="utf-8").split("\n")
    # After the last divider stands nothing, and its line is empty.
    texts, lines = texts[:-1], lines[: len(texts) - 1]
    assert len(texts) == len(lines) == 46
    meant = [[int(id) for id in line.split()] for line in lines]
    assert [text for text, ids in zip(texts, meant, strict=True) if tokenizer.encode(text) != ids] == []
    assert tokenizer.kind == QUANTIZATION_TYPES[name]
    if name != "bert-bge":
        assert [text for text in texts if not tokenizer.is_lossless(text)] == []
        # And as a file of ours would have it.
        back = read_gguf_tokenizer(Path("again"), as_read(gguf_tokenizer_fields(tokenizer, tokenizer.vocab)))
        assert back is not None
        assert [back.encode(text) for text in texts] == meant


def as_read(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as a file gives them back: numbers in arrays."""
    kinds = {"tokenizer.ggml.scores": np.float32, "tokenizer.ggml.token_type": np.int32}
    return {name: np.array(value, kinds[name]) if name in kinds else value for name, value in fields.items()}


def test_phi3s_template_and_special_tokens_are_read(data: Path, tmp_path: Path) -> None:
    tokenizer = read(vocabulary(data, tmp_path, "phi-3"))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        1,
        32_000,
        32_000,
        None,
    )
    assert tokenizer.post_processor_ids == (1,)
    assert "<|assistant|>" in tokenizer.config["chat_template"]
    assert tokenizer.encode_parsing_special("<|end|>") == [32_007]


def test_a_vocabulary_without_a_pretokenizer_is_rejected(data: Path, tmp_path: Path) -> None:
    file = vocabulary(data, tmp_path, "gpt-neox")
    with pytest.raises(BadInput, match=r"holds no tokenizer\.ggml\.pre"):
        read(file)
    with pytest.raises(Exception, match="gptneox"):
        open_model(file)
