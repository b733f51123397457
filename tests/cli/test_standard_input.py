"""Standard input in place of a text: `-` for every command that takes texts."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearstory.cli.main import main
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.heads import SequenceClassifier
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.sources import save_standard_input
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2

TINY: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with labels, a decoder and an encoder-decoder."""
    home = tmp_path_factory.mktemp("models")
    wordpiece = train_tokenizer("wordpiece:30", ["a b c d", "c a b"])
    characters = train_tokenizer("characters", ["abcd efg"])
    encoder = replace(BERT_TINY, **TINY, vocab=wordpiece.vocab, context=12)
    save_model(home / "encoder", build(encoder), wordpiece, ModelCard())
    save_model(home / "labels", SequenceClassifier(build(encoder), ("good", "bad")), wordpiece, ModelCard())
    save_model(home / "decoder", build(replace(TINY_GPT2, vocab=characters.vocab)), characters, ModelCard())
    pair = replace(T5_SMALL, **TINY, vocab=characters.vocab, context=12, decoder_start_token_id=0)
    save_model(home / "pairs", build(pair), characters, ModelCard())
    return home


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with bytes on standard input and return its JSON object."""

    def run(*words: str | Path, given: bytes) -> dict[str, Any]:
        save_standard_input.cache_clear()  # a process reads it once
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        status = main([str(word) for word in (*words, "--json")])
        out, err = capsys.readouterr()
        return json.loads(out) if status == 0 else {"status": status, "error": err}

    return run


def test_lines_of_standard_input_are_texts(folder: Path, run: Run) -> None:
    embedded = run("embed", folder / "encoder", "b c", "-", given=b"a\r\n\nc a b\n")
    assert embedded["texts"] == ["b c", "a", "c a b"]
    filled = run("fill-mask", folder / "encoder", "-", "--top", "1", given=b"a [MASK]\n[MASK] b")
    assert [each["text"] for each in filled["texts"]] == ["a [MASK]", "[MASK] b"]
    labelled = run("classify", folder / "labels", "-", given=b"a b\nc")
    assert [each["text"] for each in labelled["texts"]] == ["a b", "c"]
    translated = run("translate", folder / "pairs", "-", "--max-tokens", "2", given=b"abc\nde\n")
    assert [each["source"] for each in translated["translations"]] == ["abc", "de"]


def test_inspect_reads_the_whole_of_standard_input(folder: Path, run: Run) -> None:
    whole = run("inspect", folder / "decoder", "-", "--view", "tokens", given=b"\xef\xbb\xbfab d\n")
    assert whole == run("inspect", folder / "decoder", "ab d", "--view", "tokens", given=b"")


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        (["embed", "encoder", "-"], b"", "there is no text"),
        (["embed", "encoder", "-"], b" \n", "there is no text"),
        (["embed", "encoder", "-"], b"ab\xff", "not UTF-8"),
        (["embed", "encoder"], b"a", "or - for standard input"),
        (["inspect", "decoder", "-"], b"ab\xff", "not UTF-8 (byte 0xff at offset 2)"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(words: list[str], given: bytes, says: str, folder: Path, run: Run) -> None:
    command, model, *rest = words
    found = run(command, folder / model, *rest, given=given)
    assert found["status"] == 1
    assert says in found["error"]
    assert len(found["error"].splitlines()) == 1
