"""Comparison end to end: models trained under one budget, kept, resumed, and measured."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import ClearstoryError
from clearstory.models.families import FAMILY_DESCRIPTIONS, PRESETS
from clearstory.recipes.comparison.output_folder import open_output_folder, write_config
from clearstory.recipes.comparison.settings import CompareRecipe, parse_model_spec
from clearstory.recipes.settings.schema import build_settings
from flow.conftest import Answer
from trained import words

SMALL = "clear:width=16:layers=1:heads=2:training.batch_size=64:training.context=16"
MODELS = f"{SMALL},ngram:order=2,ngram:order=2@words"
BEST_FIRST = list(reversed(MODELS.split(",")))
"""2.0, 1.5 and 0.8 bits per byte: few steps for a network, one character to go by, whole words."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty documents."""
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    rows = [json.dumps({"text": words(60, seed=number)}) for number in range(80)]
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def leaderboard(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and JSON object of a comparison; no test changes them."""
    import io
    from contextlib import redirect_stdout

    from clearstory.cli.main import main

    folder, out = tmp_path_factory.mktemp("leaderboard") / "out", io.StringIO()
    with redirect_stdout(out):
        line = ["compare", str(text), "--models", MODELS, "--one-epoch", "--tokenizer", "characters", "--threads", "1"]
        assert main([*line, "--device", "cpu", "--out", str(folder), "--json"]) == 0
    assert out.getvalue().count("\n") == 1
    return folder, json.loads(out.getvalue())


def test_the_leaderboard_has_every_model_best_first(leaderboard: tuple[Path, dict[str, Any]]) -> None:
    folder, result = leaderboard
    bits = [model["bits_per_byte"] for model in result["models"]]
    assert bits == sorted(bits)
    assert [model["model"] for model in result["models"]] == BEST_FIRST
    assert [model["family"] for model in result["models"]] == ["ngram", "ngram", "transformer"]
    for better, worse in pairwise(result["models"]):
        assert better["interval"][1] < worse["interval"][0]
    for model in result["models"]:
        assert model["interval"][0] < model["bits_per_byte"] < model["interval"][1]
        assert model["parameters"] > 0
        assert model["sample"]
        assert (Path(model["folder"]) / "config.json").is_file()
        assert model["epochs"] >= 0.9
    for name in ("compare.json", "report.html", "curves.svg", "config.yaml"):
        assert (folder / name).is_file()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "script" not in report
    assert all(model in report for model in MODELS.split(","))


def test_a_lossy_tokenizer_pays_for_out_of_vocabulary_words(leaderboard: tuple[Path, dict[str, Any]]) -> None:
    by_words = next(model for model in leaderboard[1]["models"] if model["model"].endswith("@words"))
    assert 0 < by_words["oov_bits_per_byte"] < by_words["bits_per_byte"]
    assert "cost" in by_words["note"]


def test_a_resumed_comparison_keeps_finished_models_and_may_get_more(
    leaderboard: tuple[Path, dict[str, Any]], tmp_path: Path, cli: Any
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(leaderboard[0], folder)
    source = (leaderboard[0] / "config.yaml").read_text(encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    text = next(line for line in source.splitlines() if line.strip().startswith("- ") and "text.jsonl" in line)
    line = [
        "compare",
        text.strip()[2:],
        "--models",
        f"{MODELS},ngram:order=3",
        "--one-epoch",
        "--tokenizer",
        "characters",
    ]
    answer: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", folder, "--resume", "--json")
    assert answer.status == 0, answer.err
    result = json.loads(answer.out)
    assert len(result["models"]) == 4
    before = {model["model"]: model["bits_per_byte"] for model in leaderboard[1]["models"]}
    for model in result["models"]:
        assert model["bits_per_byte"] == before.get(model["model"], model["bits_per_byte"])
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    other: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", folder, "--resume", "--windows", "blocks")
    assert other.status == 1
    assert "was made with windows strided, and now it is blocks" in other.last


def test_trained_models_get_the_bits_per_byte_that_evaluate_gives(
    leaderboard: tuple[Path, dict[str, Any]], tmp_path: Path, cli: Any
) -> None:
    new = tmp_path / "new.txt"
    new.write_text(words(200, seed=7), encoding="utf-8")
    folders = [model["folder"] for model in leaderboard[1]["models"] if not model["model"].endswith("@words")]
    answer: Answer = cli("compare", *folders, "--text", new, "--out", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    for model in json.loads(answer.out)["models"]:
        alone: Answer = cli("evaluate", model["folder"], new, "--json")
        assert model["bits_per_byte"] == pytest.approx(json.loads(alone.out)["bits_per_byte"], rel=1e-6)


def test_a_model_that_fails_is_reported_and_the_others_continue(text: Path, tmp_path: Path, cli: Any) -> None:
    line = ["compare", text, "--models", "ngram,lstm:training.batch_size=50000", "--one-epoch", "--tokenizer", "bytes"]
    answer: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    first, last = json.loads(answer.out)["models"]
    assert first["bits_per_byte"] > 0
    assert "50,000 streams of 64 need" in last["error"]
    assert last["bits_per_byte"] is None


def test_a_budget_too_small_for_one_step_is_refused(text: Path, tmp_path: Path, cli: Any) -> None:
    line = ["compare", text, "--models", "clear,ngram", "--cpu-seconds", "0.001", "--tokenizer", "bytes"]
    answer: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", tmp_path / "out", "--json")
    assert answer.status == 1
    assert "no model could be compared; of clear: the time limit of 0.001 CPU seconds is over" in answer.last


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["t.txt", "--models", "ngram"], "there is no budget"),
        (["t.txt"], "there is nothing to compare t.txt with"),
        (["t.txt", "--models", "", "--one-epoch"], "models names none"),
        (["t.txt", "--models", "ngram,ngram", "--one-epoch"], "models has ngram twice"),
        (["t.txt", "--models", "ngramm", "--one-epoch"], "did you mean 'ngram'?"),
        (["t.txt", "--models", "ngram:ordr=3", "--one-epoch"], "did you mean"),
        (["t.txt", "--models", "ngram:3", "--one-epoch"], "is not a setting"),
        (["t.txt", "--models", "ngram", "--minutes", "1", "--cpu-seconds", "5"], "one budget"),
        (["t.txt", "--models", "ngram", "--cpu-seconds", "0"], "must be above 0"),
        (["m", "--text", "t.txt", "--seeds", "2"], "is for training"),
    ],
)
def test_invalid_comparisons_are_refused_in_a_sentence(words: list[str], expected: str, cli: Any) -> None:
    answer: Answer = cli("compare", *words)
    assert answer.status in (1, 2)
    assert expected in answer.last


def test_the_report_describes_the_family_of_every_preset() -> None:
    assert {config.family for config in PRESETS.values()} == set(FAMILY_DESCRIPTIONS)


def test_model_specs_are_parsed_with_settings_and_tokenizer() -> None:
    spec = parse_model_spec("lstm:hidden_size=64:training.batch_size=8@bpe:512")
    assert (spec.preset, spec.tokenizer, spec.full_size) == ("lstm", "bpe:512", False)
    assert dict(spec.settings) == {"model.hidden_size": "64", "training.batch_size": "8"}
    assert spec.folder_name == "lstm-hidden_size=64-training.batch_size=8-bpe-512"
    with pytest.raises(ClearstoryError, match="names 2 tokenizers"):
        parse_model_spec("lstm@bytes@words")
    assert (
        build_settings(CompareRecipe, {"sources": ("a",), "models": ("rnn,gru", "hmm"), "one_epoch": True})
        .model_specs[1]
        .preset
        == "gru"
    )


def test_a_comparison_can_be_resumed_from_any_folder(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"models": ("ngram",), "one_epoch": True, "out": tmp_path / "out", "resume": True}
    monkeypatch.chdir(text.parent)
    write_config(*open_output_folder(build_settings(CompareRecipe, {"sources": (text.name,), **given})))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for sources in ((), (os.path.relpath(text),)):
        _, continues = open_output_folder(build_settings(CompareRecipe, {"sources": sources, **given}))
        assert continues.sources == (str(text.resolve()),)
