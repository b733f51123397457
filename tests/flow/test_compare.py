"""Comparison end to end: models trained under one budget, kept, resumed, and measured."""

from __future__ import annotations

import csv
import json
import math
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clearstory.cli.arguments import parse_arguments
from clearstory.errors import ClearstoryError
from clearstory.models.families import FAMILY_DESCRIPTIONS, PRESETS
from clearstory.recipes.comparison.compare import ComparisonStarted, ModelProgress, compare_events
from clearstory.recipes.comparison.output_folder import open_output_folder, write_config
from clearstory.recipes.comparison.settings import CompareRecipe, parse_model_spec
from clearstory.recipes.settings.schema import build_settings, setting_table
from clearstory.recipes.training.events import StepCompleted
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
    assert "account for" in by_words["note"]


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
    assert "was started with windows strided, but now it is blocks" in other.last


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
    assert "no model could be compared; of clear: the time limit of 0.001 CPU seconds is too short" in answer.last


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "nowhere"], "nowhere has no comparison results yet"),
        (["t.txt", "--models", "ngram"], "there is no budget"),
        (["t.txt"], "there is nothing to compare t.txt with"),
        (["t.txt", "--models", "", "--one-epoch"], "models is empty"),
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


def test_several_seeds_are_counted_killed_and_resumed(text: Path, tmp_path: Path, cli: Any) -> None:
    """Two models, one of them with two seeds: killed after the first run, looked at, and resumed."""
    line = ["compare", text, "--models", f"{SMALL},ngram:order=2", "--one-epoch", "--tokenizer", "characters"]
    line += ["--threads", "1", "--device", "cpu", "--seeds", "2", "--out", tmp_path / "out"]
    recipe = build_settings(CompareRecipe, parse_arguments([*map(str, line[1:])], setting_table(CompareRecipe)))
    labels = [f"{SMALL}, seed 0", f"{SMALL}, seed 1", "ngram:order=2"]
    for event in compare_events(recipe):
        match event:
            case ComparisonStarted():
                assert (event.models, event.runs) == (2, tuple(labels))
            case ModelProgress():
                assert labels[event.number - 1] == event.run
                if event.number == 2 and isinstance(event.progress, StepCompleted):
                    break  # as if the process were killed here
    rows = csv_rows(tmp_path / "out")
    assert [(row["model"], row["seed"], row["budget"]) for row in rows] == [(SMALL, "0", "one epoch")]
    table = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "1 of 3 done so far." in table
    assert f"| {SMALL} | transformer |" in table
    assert json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["planned"] == 3
    looked: Answer = cli("compare", "--out", tmp_path / "out")
    assert (looked.status, looked.out.strip()) == (0, table.strip())
    assert json.loads(cli("compare", "--out", tmp_path / "out", "--json").out)["done"] == 1

    answer: Answer = cli(*line, "--resume")
    assert answer.status == 0, answer.err
    assert "2 models in 3 runs, one epoch; evaluated on" in answer.err
    assert f"{SMALL}, seed 0: {float(rows[0]['bits_per_byte']):.4f} bits per byte" in answer.err
    assert "from an earlier run" in answer.err
    assert f"{SMALL}, seed 1 (2 of 3)" in answer.err
    assert "ngram:order=2 (3 of 3)" in answer.err
    every = csv_rows(tmp_path / "out")
    assert every[0] == rows[0]
    assert [(row["model"], row["seed"]) for row in every] == [(SMALL, "0"), (SMALL, "1"), ("ngram:order=2", "0")]
    assert len({row["bits_per_byte"] for row in every}) == 3
    mean = sum(float(row["bits_per_byte"]) for row in every[:2]) / 2
    table = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "so far" not in table
    assert f"| {mean:.4f} |" in table
    nats = sum(float(row["nats_per_token"]) for row in every[:2]) / 2
    assert f"| {nats:.4f} |" in table
    low, high = sorted(float(row["bits_per_byte"]) for row in every[:2])
    assert f"| 2: {low:.4f} to {high:.4f} |" in table

    more = [str(each) if each != "2" else "3" for each in line]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model/model.safetensors")}
    assert cli(*more, "--resume").status == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert len(csv_rows(tmp_path / "out")) == 4


def test_lines_are_documents_and_samples_are_lines(tmp_path: Path, cli: Any) -> None:
    names = tmp_path / "names.txt"
    rng = random.Random(0)
    lines = ["".join(rng.choices(("an", "ma", "el", "ri", "no"), k=rng.randint(2, 3))) for _ in range(400)]
    names.write_text("\n".join(lines) + "\n", encoding="utf-8")
    line = ["compare", names, "--data.lines", "--models", "ngram:order=2,ngram:order=3", "--one-epoch"]
    answer: Answer = cli(*line, "--tokenizer", "characters", "--characters", "60", "--out", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    result = json.loads(answer.out)
    assert result["interval"]["unit"] == "documents"
    assert result["prompt"] == ""
    for model in result["models"]:
        sample = model["sample"].split("\n")
        assert 5 <= len(sample) <= 20
        assert len(set(sample)) > 3
        # Each token is a character or the end of a line, and the line feed is a byte that was read.
        assert model["nats_per_token"] == pytest.approx(model["bits_per_byte"] * math.log(2), rel=1e-9)
    table = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "Text generated by ngram:order=3:" in table


def csv_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_overwrite_measures_anew(tmp_path: Path, cli: Any) -> None:
    for name, line in (("one.txt", "the cat sat on the mat\n"), ("two.txt", "a dog barks at night\n")):
        (tmp_path / name).write_text(line * 200, encoding="utf-8")
    usual = ["compare", tmp_path / "one.txt", "--models", "ngram", "--one-epoch", "--tokenizer", "characters", "--json"]
    scores = []
    for name in ("one.txt", "two.txt"):
        answer = cli(*usual, "--text", tmp_path / name, "--out", tmp_path / "out", "--overwrite")
        assert answer.status == 0, answer.err
        scores.append(json.loads(answer.out)["models"][0]["bits_per_byte"])
    assert scores[1] > scores[0] + 0.5
