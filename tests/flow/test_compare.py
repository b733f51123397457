"""The ladder on the road a user takes: models trained under one budget, kept, gone on with, and measured."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import ClearstoryError
from clearstory.recipes.comparison.settings import CompareRecipe, parse
from clearstory.recipes.comparison.output_folder import begin, write_down
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
def ladder(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A comparison that nobody changes."""
    import io
    from contextlib import redirect_stdout

    from clearstory.cli.main import main

    folder, out = tmp_path_factory.mktemp("ladder") / "out", io.StringIO()
    with redirect_stdout(out):
        line = ["compare", str(text), "--models", MODELS, "--same-data", "--tokenizer", "characters", "--threads", "1"]
        assert main([*line, "--device", "cpu", "--out", str(folder), "--json"]) == 0
    assert out.getvalue().count("\n") == 1
    return folder, json.loads(out.getvalue())


def test_every_model_stands_on_the_ladder_best_first(ladder: tuple[Path, dict[str, Any]]) -> None:
    folder, said = ladder
    bits = [model["bits_per_byte"] for model in said["models"]]
    assert bits == sorted(bits)
    assert [model["model"] for model in said["models"]] == BEST_FIRST
    assert [model["family"] for model in said["models"]] == ["ngram", "ngram", "transformer"]
    for better, worse in pairwise(said["models"]):
        assert better["interval"][1] < worse["interval"][0]
    for model in said["models"]:
        assert model["interval"][0] < model["bits_per_byte"] < model["interval"][1]
        assert model["parameters"] > 0
        assert model["sample"]
        assert (Path(model["folder"]) / "config.json").is_file()
        assert model["passes"] >= 0.9
    for name in ("compare.json", "report.html", "curves.svg", "config.yaml"):
        assert (folder / name).is_file()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "script" not in report
    assert all(model in report for model in MODELS.split(","))


def test_a_lossy_tokenizer_is_charged_for_what_it_loses(ladder: tuple[Path, dict[str, Any]]) -> None:
    by_words = next(model for model in ladder[1]["models"] if model["model"].endswith("@words"))
    assert 0 < by_words["charged"] < by_words["bits_per_byte"]
    assert "cost" in by_words["note"]


def test_what_is_finished_is_kept_and_more_models_may_come(
    ladder: tuple[Path, dict[str, Any]], tmp_path: Path, cli: Any
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(ladder[0], folder)
    source = (ladder[0] / "config.yaml").read_text(encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    text = next(line for line in source.splitlines() if line.strip().startswith("- ") and "text.jsonl" in line)
    line = [
        "compare",
        text.strip()[2:],
        "--models",
        f"{MODELS},ngram:order=3",
        "--same-data",
        "--tokenizer",
        "characters",
    ]
    went: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", folder, "--resume", "--json")
    assert went.status == 0, went.err
    said = json.loads(went.out)
    assert len(said["models"]) == 4
    before = {model["model"]: model["bits_per_byte"] for model in ladder[1]["models"]}
    for model in said["models"]:
        assert model["bits_per_byte"] == before.get(model["model"], model["bits_per_byte"])
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    other: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", folder, "--resume", "--windows", "blocks")
    assert other.status == 1
    assert "was made with windows strided, and now it is blocks" in other.last


def test_finished_models_are_measured_as_evaluate_measures_them(
    ladder: tuple[Path, dict[str, Any]], tmp_path: Path, cli: Any
) -> None:
    new = tmp_path / "new.txt"
    new.write_text(words(200, seed=7), encoding="utf-8")
    folders = [model["folder"] for model in ladder[1]["models"] if not model["model"].endswith("@words")]
    went: Answer = cli("compare", *folders, "--text", new, "--out", tmp_path / "out", "--json")
    assert went.status == 0, went.err
    for model in json.loads(went.out)["models"]:
        alone: Answer = cli("evaluate", model["folder"], new, "--json")
        assert model["bits_per_byte"] == pytest.approx(json.loads(alone.out)["bits_per_byte"], rel=1e-6)


def test_a_model_that_fails_is_said_and_the_others_go_on(text: Path, tmp_path: Path, cli: Any) -> None:
    line = ["compare", text, "--models", "ngram,lstm:training.batch_size=50000", "--same-data", "--tokenizer", "bytes"]
    went: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", tmp_path / "out", "--json")
    assert went.status == 0, went.err
    first, last = json.loads(went.out)["models"]
    assert first["bits_per_byte"] > 0
    assert "50,000 streams of 64 need" in last["failed"]
    assert last["bits_per_byte"] is None


def test_a_budget_too_small_for_one_step_is_one_sentence(text: Path, tmp_path: Path, cli: Any) -> None:
    line = ["compare", text, "--models", "clear,ngram", "--cpu-seconds", "0.001", "--tokenizer", "bytes"]
    went: Answer = cli(*line, "--threads", "1", "--device", "cpu", "--out", tmp_path / "out", "--json")
    assert went.status == 1
    assert "no model could be compared; of clear: 0.001 seconds of the processor are over" in went.last


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["t.txt", "--models", "ngram"], "there is no budget"),
        (["t.txt"], "there is nothing to compare t.txt with"),
        (["t.txt", "--models", "", "--same-data"], "models names none"),
        (["t.txt", "--models", "ngram,ngram", "--same-data"], "models has ngram twice"),
        (["t.txt", "--models", "ngramm", "--same-data"], "did you mean 'ngram'?"),
        (["t.txt", "--models", "ngram:ordr=3", "--same-data"], "did you mean"),
        (["t.txt", "--models", "ngram:3", "--same-data"], "is no setting"),
        (["t.txt", "--models", "ngram", "--minutes", "1", "--cpu-seconds", "5"], "one budget"),
        (["t.txt", "--models", "ngram", "--cpu-seconds", "0"], "must be above 0"),
        (["m", "--text", "t.txt", "--seeds", "2"], "is for training"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(words: list[str], says: str, cli: Any) -> None:
    went: Answer = cli("compare", *words)
    assert went.status in (1, 2)
    assert says in went.last


def test_models_are_written_with_their_settings_and_tokenizer() -> None:
    entry = parse("lstm:hidden_size=64:training.batch_size=8@bpe:512")
    assert (entry.name, entry.tokenizer, entry.full) == ("lstm", "bpe:512", False)
    assert dict(entry.settings) == {"model.hidden_size": "64", "training.batch_size": "8"}
    assert entry.folder == "lstm-hidden_size=64-training.batch_size=8-bpe-512"
    with pytest.raises(ClearstoryError, match="names 2 tokenizers"):
        parse("lstm@bytes@words")
    assert (
        build_settings(CompareRecipe, {"sources": ("a",), "models": ("rnn,gru", "hmm"), "same_data": True}).entries[1].name
        == "gru"
    )


def test_a_comparison_goes_on_from_any_folder(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"models": ("ngram",), "same_data": True, "out": tmp_path / "out", "resume": True}
    monkeypatch.chdir(text.parent)
    write_down(*begin(build_settings(CompareRecipe, {"sources": (text.name,), **given})))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for sources in ((), (os.path.relpath(text),)):
        _, continues = begin(build_settings(CompareRecipe, {"sources": sources, **given}))
        assert continues.sources == (str(text.resolve()),)
