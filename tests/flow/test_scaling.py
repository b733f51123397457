"""A scaling law end to end: sizes by amounts are trained, kept and resumed, and a law is fitted to their losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.errors import BadSetting, CannotDo
from clearstory.recipes.comparison.compare import ModelMeasured
from clearstory.recipes.comparison.scaling import scaling_events
from clearstory.recipes.comparison.settings import CompareRecipe
from clearstory.recipes.settings.schema import build_settings
from trained import words

Cli = Callable[..., Any]

MODEL = "lstm:training.context=8:training.batch_size=8"
GRID = ("--sizes", "2k", "6k", "16k", "--data", "0.15", "0.4", "1")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty documents, of some ten thousand characters."""
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    file.write_text("\n".join(json.dumps({"text": words(30, seed=n)}) for n in range(80)), encoding="utf-8")
    return file


def command(text: Path, out: Path, *more: Any) -> list[Any]:
    return ["compare", text, "--models", MODEL, "--tokenizer", "characters", "--device", "cpu", "--threads", "1",
            "--out", out, "--json", *more]  # fmt: skip


def test_sizes_by_amounts_are_trained_and_kept(text: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "law"
    answer = cli(*command(text, out, *GRID))
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    runs = found["runs"]
    assert len(runs) == found["planned"] == 9
    assert len({run["parameters"] for run in runs}) == len({run["tokens"] for run in runs}) == 3
    assert max(run["epochs"] for run in runs) == pytest.approx(1, abs=0.02)  # each token once
    assert {each["change"] for each in found["predictions"]} >= {"twice the data", "twice the parameters"}
    assert set(found["law"]) == set(found["intervals"]) == {"E", "A", "alpha", "B", "beta"}
    assert found["held_out"]["parameters"] == max(run["parameters"] for run in runs)
    assert found["sentences"][1].startswith("twice the data: ")
    for name in ("results.csv", "results.md", "compare.json", "report.html", "curves.svg", "config.yaml"):
        assert (out / name).is_file()
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    assert len((out / "results.csv").read_text(encoding="utf-8").splitlines()) == 10
    assert cli("compare", "--out", out).out.startswith("# Scaling law of lstm")

    again = cli("compare", "--resume", "--out", out)  # fitted anew, from the runs that are there
    assert again.status == 0, again.err
    assert again.err.count("from an earlier run") == 9
    assert "bits per byte = " in again.out
    answer = cli(*command(text, out, *GRID, "--sizes", "36k", "--resume"))
    assert answer.status == 0, answer.err
    more = json.loads(answer.out)
    assert more["planned"] == 12
    assert {run["cpu_seconds"] for run in runs} <= {run["cpu_seconds"] for run in more["runs"]}
    assert cli(*command(text, out, *GRID, "--resume", "--tokenizer", "bytes")).status == 1


def test_time_that_is_too_short_keeps_what_is_finished(text: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "law"
    answer = cli(*command(text, out, *GRID, "--cpu-seconds", "0.01"))
    assert answer.status == 1
    assert "1 of 9 runs are finished after" in answer.err
    assert "--resume with a larger --cpu-seconds" in answer.err.splitlines()[-1]
    recipe = build_settings(CompareRecipe, {"out": out, "resume": True, "sizes": ()})
    first = next(event for event in scaling_events(recipe) if isinstance(event, ModelMeasured))
    assert first.reused


def test_it_chooses_sizes_by_the_time(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearstory.recipes.comparison import scaling_runs
    from clearstory.recipes.comparison.model_run import TrainingContext
    from clearstory.text.corpus import Corpus

    monkeypatch.setattr(scaling_runs, "training_speed", lambda settings: 1e9)
    values = {"sources": (str(text),), "sizes": ("auto",), "tokenizer": "characters", "threads": 1, "device": "cpu"}

    def planned(seconds: float) -> scaling_runs.ScalingPlan:
        recipe = build_settings(CompareRecipe, {**values, "cpu_seconds": seconds})
        return scaling_runs.plan_scaling(TrainingContext(recipe, tmp_path, Corpus.open(recipe.sources, recipe.data)))

    large, larger = planned(300), planned(3000)
    for plan, seconds in ((large, 300), (larger, 3000)):
        assert len(plan.sizes) == len(plan.amounts) == 4
        operations = 6 * sum(size * amount for size, amount, _ in plan.runs)
        assert operations < 1e9 * seconds
        assert plan.runs[0][:2] == (plan.sizes[0], plan.amounts[0])
        assert plan.steps(plan.amounts[0]) >= 1
    assert larger.sizes[-1] > large.sizes[-1]
    with pytest.raises(BadSetting, match=r"cpu_seconds is 0.1, in which 4 sizes from .* give about"):
        planned(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ("1k", "2k")}, "sizes is 1k 2k; a power law with a constant needs at least 3 different values"),
        ({"sizes": ("1k", "2k", "4k"), "amounts": ("0.5", "1")}, "amounts is 0.5 1; .* at least 3"),
        ({"sizes": ("1k", "2k", "many")}, "sizes has 'many'; give numbers above 0"),
        ({"sizes": ("1k", "2k", "0")}, "sizes has '0'"),
        ({"sizes": ("auto",)}, "there is no budget to choose them for; give --cpu-seconds"),
        ({"amounts": ("0.1", "0.2", "1")}, "there are no sizes"),
        ({"sizes": ("1k", "2k", "4k"), "models": ("lstm,clear",)}, "models has 2"),
        ({"sizes": ("1k", "2k", "4k"), "minutes": 1.0}, "minutes does not apply with sizes"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        build_settings(CompareRecipe, {"sources": ("a.txt",), **settings})


def test_what_the_text_or_the_model_has_not_is_one_sentence(text: Path, tmp_path: Path) -> None:
    sizes = (2000, 6000, 16_000)
    out = tmp_path / "law"
    with pytest.raises(BadSetting, match=r"amounts has 9,000,000 tokens, and the training text has .,..., each"):
        clearstory.scaling_law(text, sizes=sizes, amounts=(0.1, 0.5, 9e6), tokenizer="characters", out=out)
    with pytest.raises(BadSetting, match=r"sizes has 2,000 and 2,100, but the nearest lstm to both has .* parameters"):
        clearstory.scaling_law(text, models="lstm", sizes=("2k", "2100", "16k"), tokenizer="characters", out=out)
    with pytest.raises(BadSetting, match=r"sizes has 10, and the nearest lstm with .. tokens has"):
        clearstory.scaling_law(text, models="lstm", sizes=("10", "2k", "16k"), tokenizer="characters", out=out)
    with pytest.raises(CannotDo, match="ngram has no adjustable size"):
        clearstory.scaling_law(text, models="ngram", sizes=sizes, tokenizer="characters", out=out)
    with pytest.raises(BadSetting, match=r"call clearstory\.scaling_law"):
        clearstory.compare(text, sizes=sizes)
    assert not any(out.glob("[a-z]*"))
