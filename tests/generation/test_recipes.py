"""generate, evaluate and inspect with an untrained model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearstory.errors import BadInput, BadSetting, ContextOverflow, UnknownName
from clearstory.generation.settings import Sampling
from clearstory.lens.views import Table
from clearstory.models.build import build
from clearstory.recipes.inference.completion import TextChunk
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.recipes.inference.generate import Generation, generate, stream_generate
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2

BYTES = train_tokenizer("bytes", [])
WORDS = train_tokenizer("words", ["a b a b c\n"])


@pytest.fixture(scope="module")
def opened() -> Any:
    return SimpleNamespace(model=build(replace(TINY_GPT2, vocab=BYTES.vocab), seed=1), tokenizer=BYTES)


def test_the_pieces_are_the_text(opened: Any) -> None:
    *pieces, done = stream_generate(opened, "ab", Sampling(max_tokens=40, seed=2))
    assert isinstance(done, Generation)
    assert all(isinstance(piece, TextChunk) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == done.text
    content = done.to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["tokens"] == len(content["ids"]) == len(content["logprobs"])
    assert content["text"] == BYTES.decode([id for id in content["ids"] if id != BYTES.eos_token_id])


def test_several_prompts_give_what_each_gives_alone(opened: Any) -> None:
    many = generate(opened, ["ab", "", "xyz"], max_tokens=10, seed=5, ignore_eos=True)
    for number, prompt in enumerate(["ab", "", "xyz"]):
        alone = generate(opened, prompt, max_tokens=10, seed=5 + number, ignore_eos=True)
        assert alone.text == many.completions[number].text
    assert [each["prompt"] for each in many.to_json()["completions"]] == ["ab", "", "xyz"]
    assert many.to_json()["tokens"] == 30


def test_a_stop_string_ends_the_text_and_is_not_in_it(opened: Any) -> None:
    free = generate(opened, "ab", max_tokens=30, seed=5, ignore_eos=True)
    stop = free.text[9:11]
    heard: list[str] = []
    cut = generate(
        opened,
        "ab",
        max_tokens=30,
        seed=5,
        ignore_eos=True,
        stop=(stop,),
        on_text=lambda piece: heard.append(piece.text),
    )
    assert cut.text == free.text[: free.text.index(stop)] == "".join(heard)
    assert cut.completions[0].finished == "stop"
    assert len(cut.completions[0].ids) < 30


def test_beams_come_best_first(opened: Any) -> None:
    content = generate(opened, "ab", max_tokens=4, beam=3).to_json()
    scores = [each["score"] for each in content["completions"]]
    assert scores == sorted(scores, reverse=True)
    assert content["text"] == content["completions"][0]["text"]


def test_int8_generates_too(opened: Any) -> None:
    assert generate(opened, "ab", max_tokens=4, int8=True, temperature=0).tokens <= 4


def test_a_long_prompt_is_refused_or_cut(opened: Any) -> None:
    with pytest.raises(ContextOverflow):
        generate(opened, "a" * 30)
    assert generate(opened, "a" * 30, truncate="left", max_tokens=2, seed=1).tokens
    with pytest.raises(BadInput):
        generate(opened, [])
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        generate(SimpleNamespace(model=opened.model, tokenizer=None), "a")
    with pytest.raises(BadSetting, match="device"):
        generate(opened, "a", device="nowhere")


def test_all_of_a_text_is_scored(opened: Any) -> None:
    texts = ["hello there, " * 9, "b", "ünïcödé"]
    seen: list[tuple[int, int]] = []
    result = evaluate(opened, texts=texts, on_progress=lambda done, whole: seen.append((done, whole)))
    size = sum(len(text.encode()) for text in texts)
    # Every byte is a token, and each of three documents ends with one.
    assert (result.score.bytes, result.score.tokens, result.documents) == (size, size + 3, 3)
    assert result.bits_per_byte == pytest.approx(result.score.nats / math.log(2) / size)
    assert seen[-1] == (size + 3, size + 3)
    content = result.to_json()
    assert json.loads(json.dumps(content)) == content
    assert (content["windows"], content["stride"], content["context"], content["lossless"]) == ("strided", 12, 24, True)
    assert evaluate(opened, texts=texts, stride=24).score.nats == pytest.approx(
        evaluate(opened, texts=texts, windows="blocks").score.nats, rel=1e-6
    )
    assert evaluate(opened, texts=texts, limit=30).score.tokens < size
    assert evaluate(opened, texts=texts, int8=True).score.tokens == size + 3


def test_files_are_read_as_their_text(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello there")
    assert evaluate(opened, tmp_path / "a.txt").score == evaluate(opened, texts=["hello there"]).score
    with pytest.raises(BadInput):
        evaluate(opened, texts=[""])


def test_a_lossy_tokenizer_has_no_bits_per_byte() -> None:
    opened = SimpleNamespace(model=build(replace(TINY_GPT2, vocab=WORDS.vocab), seed=1), tokenizer=WORDS)
    result = evaluate(opened, texts=["a zebra b a\n"])
    content = result.to_json()
    assert content["bits_per_byte"] is None
    assert content["bytes"] is None
    assert content["unknown"] == 1
    assert not content["lossless"]
    assert "1 tokens" in content["reason"]
    assert content["nats_per_token"] > 0


def test_a_view_is_computed_and_saved(opened: Any, tmp_path: Path) -> None:
    view = inspect(opened, "ab", top=5, out=tmp_path / "next.json")
    assert isinstance(view, Table)
    assert json.loads((tmp_path / "next.json").read_text()) == view.to_json()
    for wrong in ({"view": "nxt"}, {"topp": 3}, {"out": tmp_path / "next.png"}):
        with pytest.raises(UnknownName):
            inspect(opened, "ab", **wrong)
