"""Encoder-decoders end to end: parallel and running text, resumed runs, and impossible settings."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.events import Evaluated, RunPrepared, TextSampled, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.text.sentinels import sentinels
from trained import TRAINING, contents, text_file

Cli = Callable[..., Any]

ENGLISH = ["the cat", "a dog", "my friend", "the old man", "sees", "hears", "a bird", "the sea", "today", "again"]
GERMAN = ["die Katze", "ein Hund", "mein Freund", "der Mann", "sieht", "hört", "einen Vogel", "das Meer", "heute", "ja"]
SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 48, "dropout": 0.0}
QUICK = {**TRAINING, "context": None, "learning_rate": 0.01}


def sentences(count: int = 80) -> list[tuple[str, str]]:
    rng = random.Random(0)
    ways = [(rng.randrange(4), 4 + rng.randrange(2), 6 + rng.randrange(2), 8 + rng.randrange(2)) for _ in range(count)]
    return [(" ".join(ENGLISH[at] for at in way), " ".join(GERMAN[at] for at in way)) for way in ways]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in sentences()), encoding="utf-8")
    return file


def all_events(file: Path | tuple[str, ...], out: Path, name: str = "clear-translate", **more: Any) -> list[Any]:
    text = file if isinstance(file, tuple) else (str(file),)
    usual = {"text": text, "out": out, "steps": 8, "tokenizer": "bpe:300"}
    return list(train_events(build_train_recipe({**usual, "model": {"name": name, **SMALL}, "training": QUICK}, more)))


def test_one_command_trains_a_translator_on_pairs(pairs: Path, tmp_path: Path, cli: Cli) -> None:
    events = all_events(pairs, tmp_path / "run", **{"training.sample_steps": 4})
    [prepared] = [event for event in events if isinstance(event, RunPrepared)]
    assert (prepared.documents, prepared.unit) == (80, "pair")
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert all(each.loss_unit == "target token" and each.bits_per_byte is None for each in evaluations)
    assert evaluations[-1].nats_per_token < evaluations[0].nats_per_token + 0.1
    assert all(" → " in event.text for event in events if isinstance(event, TextSampled))
    finished = events[-1]
    assert isinstance(finished, TrainingResult)
    assert finished.objective == "seq2seq"
    assert "from its source" in str(finished.reason)
    saved = read_yaml(tmp_path / "run" / "config.yaml")
    assert (saved["objective"], saved["data"]["pairs"]) == ("seq2seq", True)

    opened = clearstory.open(tmp_path / "run")
    begin = opened.model.config.decoder_start_token_id
    assert begin == opened.tokenizer.pad_token_id
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "run" / "model" / name).read_text())["decoder_start_token_id"] == begin

    answer = cli("generate", tmp_path / "run", "the cat sees", "--max-tokens", "5", "--seed", "1")
    assert answer.status == 0
    assert "the cat sees" not in answer.out  # a source is not what is written on from
    made = json.loads(
        cli("generate", tmp_path / "run", "the cat sees", "--max-tokens", "5", "--seed", "1", "--json").out
    )
    assert made["text"] + "\n" == answer.out


def test_translations_of_files_and_what_is_refused(pairs: Path, tmp_path: Path, cli: Cli) -> None:
    all_events(pairs, tmp_path / "run", steps=2)
    old = tmp_path / "old.txt"
    old.write_bytes(b"caf\xe9\nthe cat\n")
    assert "not UTF-8" in cli("translate", tmp_path / "run", old).last
    answer = cli("translate", tmp_path / "run", old, "a dog", "--errors", "replace", "--max-tokens", "4", "--json")
    result = json.loads(answer.out)
    assert [each["source"] for each in result["translations"]] == ["caf�", "the cat", "a dog"]
    lines = cli("translate", tmp_path / "run", old, "a dog", "--errors", "replace", "--max-tokens", "4").out
    assert lines == "".join(f"{each['text']}\n" for each in result["translations"])
    assert "device is 'cuda:99'" in cli("translate", tmp_path / "run", "x", "--device", "cuda:99").last
    assert "there is no text" in cli("translate", tmp_path / "run").last
    assert "give it the text" in cli("generate", tmp_path / "run").last


def test_a_resumed_run_equals_an_uninterrupted_one(pairs: Path, tmp_path: Path) -> None:
    steady = {"training.schedule": "noam"}  # which does not ask how long a run will be
    all_events(pairs, tmp_path / "whole", **steady)
    all_events(pairs, tmp_path / "half", steps=4, **steady)
    all_events(pairs, tmp_path / "half", steps=8, resume=True, **steady)
    whole, half = (contents(tmp_path / name / "checkpoints" / "step-000008") for name in ("whole", "half"))
    assert {name: data for name, data in whole.items() if name.endswith("safetensors")} == {
        name: data for name, data in half.items() if name.endswith("safetensors")
    }


def test_one_command_trains_span_corruption_on_running_text(tmp_path: Path, cli: Cli) -> None:
    events = all_events(text_file(tmp_path), tmp_path / "run", "t5-small", **{"training.sample_steps": 4})
    finished = events[-1]
    assert isinstance(finished, TrainingResult)
    assert finished.objective == "span_corruption"
    assert "dropped" in str(finished.reason)
    [prepared] = [event for event in events if isinstance(event, RunPrepared)]
    assert prepared.unit == "document"
    opened = clearstory.open(tmp_path / "run")
    assert opened.tokenizer.encode_parsing_special("<extra_id_99>") == [opened.tokenizer.vocab - 1]
    # What it writes is read by its sentinels.
    samples = [event.text for event in events if isinstance(event, TextSampled)]
    assert samples
    assert all("<extra_id_0>" in text.split(" → ")[0] for text in samples)
    made = json.loads(cli("generate", tmp_path / "run", "the cat", "--max-tokens", "40", "--seed", "1", "--json").out)
    assert made["text"].count("<extra_id_") == sum(id in sentinels(opened.tokenizer) for id in made["ids"]) > 0
    streamed = cli("generate", tmp_path / "run", "the cat", "--max-tokens", "40", "--seed", "1")
    assert streamed.out == made["text"] + "\n"
    beams = json.loads(cli("generate", tmp_path / "run", "the cat", "--max-tokens", "40", "--beam", "2", "--json").out)
    for beam in beams["completions"]:
        assert beam["text"].count("<extra_id_") == sum(id in sentinels(opened.tokenizer) for id in beam["ids"])


def test_two_files_are_pairs_by_name_or_where_that_is_said(tmp_path: Path, cli: Cli) -> None:
    for side, names in enumerate((("text.en", "first"), ("text.de", "second"))):
        for name in names:
            (tmp_path / name).write_text("\n".join(pair[side] for pair in sentences()), encoding="utf-8")
    named, other = ((str(tmp_path / a), str(tmp_path / b)) for a, b in (("text.en", "text.de"), ("first", "second")))
    runs = {
        "names": all_events(named, tmp_path / "names", steps=1),
        "other": all_events(other, tmp_path / "other", steps=1),
        "objective": all_events(other, tmp_path / "objective", steps=1, objective="seq2seq"),
        "setting": all_events(other, tmp_path / "setting", steps=1, **{"data.pairs": True}),
        "spans": all_events(named, tmp_path / "spans", steps=1, objective="span_corruption"),
    }
    assert {name: events[-1].objective for name, events in runs.items()} == {
        "names": "seq2seq", "other": "span_corruption", "objective": "seq2seq", "setting": "seq2seq",
        "spans": "span_corruption",
    }  # fmt: skip
    assert len({runs[name][-1].nats_per_token for name in ("names", "objective", "setting")}) == 1
    notes = {name: str(next(each.note for each in runs[name] if isinstance(each, RunPrepared))) for name in runs}
    advice = "first and second have 80 lines each and are read as running text; if their lines are sources and targets"
    assert advice in notes["other"]
    assert "running text" not in notes["names"]
    with (tmp_path / "text.de").open("a", encoding="utf-8") as file:
        file.write("\neins\nzwei")
    answer = cli("train", *named, "--model", "clear-translate", "--out", tmp_path / "r")
    assert answer.status == 1
    assert "text.en has 80 lines and " in answer.last
    assert "text.de has 82; line-aligned files have a target line for each source line" in answer.last


def test_pairs_that_are_too_long_are_reported(pairs: Path, tmp_path: Path) -> None:
    [prepared] = [
        event
        for event in all_events(pairs, tmp_path / "run", steps=1, **{"model.context": 20})
        if isinstance(event, RunPrepared)
    ]
    assert "pairs with a source or target of more than 20 tokens are dropped" in str(prepared.note)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objective", "causal"], "causal, which does not train an encoder-decoder"),
        (["--objective", "span_corruption"], "span_corruption, which is not trained on pairs"),
        (["--model", "gpt2", "--objective", "seq2seq"], "seq2seq, which does not train a decoder"),
        (["--model", "gpt2", "--data.pairs"], "the model is a decoder, which is not trained on pairs"),
        (["--model", "gpt2", "--training.label_smoothing", "0.1"], "label_smoothing is 0.1 and the objective causal"),
        (["--model.decoder_start_token_id", "5000"], "model.decoder_start_token_id is 5,000"),
        (["--tokenizer", "words", "--data.source_field", "target"], "give two fields"),
    ],
)
def test_impossible_settings_are_refused(
    pairs: Path, tmp_path: Path, cli: Cli, words: list[str], expected: str
) -> None:
    answer = cli(
        "train", pairs, "--model", "clear-translate", "--tokenizer", "bpe:300", "--out", tmp_path / "r", *words
    )
    assert answer.status in (1, 2)
    assert expected in answer.last
    assert "Traceback" not in answer.err
    assert not (tmp_path / "r").exists()


def test_running_text_has_no_pairs(tmp_path: Path, cli: Cli) -> None:
    file = text_file(tmp_path)
    answer = cli("train", file, "--model", "clear-translate", "--objective", "seq2seq", "--out", tmp_path / "r")
    assert answer.status == 1
    assert "1 text files are not pairs" in answer.last
