"""Weight checkpoints: about twelve log-spaced steps of a run are kept as models, whatever decides its length."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import clearstory
from clearstory.formats.lora.adapters import CONFIG as ADAPTER_CONFIG
from clearstory.recipes.training.events import ModelSaved
from clearstory.training.checkpoint import list_checkpoints
from clearstory.training.weight_checkpoints import (
    is_weight_step,
    list_saved_models,
    list_weights,
    log_spaced_steps,
    thin_steps,
)
from trained import all_events, recipe, text_file


@pytest.mark.parametrize("count", [1, 2, 3, 12, 30])
def test_steps_are_spaced_from_the_first_to_the_last(count: int) -> None:
    for total in [*range(1, 60), 1000, 1001, 54_321, 10**7]:
        steps = log_spaced_steps(total, count)
        assert (steps[0], steps[-1]) == (0, total)
        assert all(before < after for before, after in pairwise(steps))
        assert len(steps) == min(total + 1, max(2, count))
    # 10^6 in five ratios, each from the rounded step before: 10^(6/5) = 15.85, 16 (10^6/16)^(1/4) = 253, ...
    assert log_spaced_steps(10**6, 7) == (0, 1, 16, 253, 4000, 63_246, 10**6)


def test_a_plan_that_changes_still_gives_about_twelve_steps() -> None:
    for plans in ([5000] * 2000, [100, 400, 1000, 1900, 2000] * 400, [2000] * 300 + [90_000] * 1700):
        kept: list[int] = []
        for step in range(1, 2001):
            total = max(step, plans[step - 1])
            if step == 2000 or is_weight_step(step, max(kept, default=0), total, 12):
                kept = thin_steps({0, *kept, step}, 12)
        assert 8 <= len(kept) <= 12
        assert (kept[0], kept[1], kept[-1]) == (0, 1, 2000)
        assert max(after / before for before, after in pairwise(kept[1:])) < 16


def test_thinning_keeps_the_ends_and_equal_ratios() -> None:
    assert thin_steps([0, 1, 2, 4, 8, 16, 17, 32], 7) == [0, 1, 2, 4, 8, 16, 32]
    assert thin_steps([5, 6, 7], 1) == [5, 7]
    assert thin_steps([], 3) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twenty steps; not to be written to."""
    home = tmp_path_factory.mktemp("weights")
    all_events(recipe(text_file(home), home / "run", steps=20, **{"training.precision": "fp32"}))
    return home / "run"


def test_a_run_keeps_weights_that_open_as_models(run: Path) -> None:
    assert list(list_weights(run)) == [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
    assert [path.name for path in list_checkpoints(run)] == ["step-000000", "step-000016", "step-000020"]
    text = ["the cat sat on a mat. dogs bark"]
    losses = [clearstory.evaluate(path, texts=text).score.nats_per_token for path in list_saved_models(run).values()]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert len(set(losses)) == 12


def test_they_hold_no_optimizer_state_and_equal_the_checkpoint_of_their_step(run: Path) -> None:
    weights, full = run / "checkpoints" / "weights-000016", run / "checkpoints" / "step-000016"
    assert not (weights / "optimizer.safetensors").exists()
    assert not (weights / "state.json").exists()
    assert (weights / "model.safetensors").read_bytes() == (full / "model.safetensors").read_bytes()
    size = sum(file.stat().st_size for file in weights.iterdir())
    assert size < 0.6 * sum(file.stat().st_size for file in full.iterdir())


def test_a_deleted_checkpoint_opens_by_its_step(run: Path) -> None:
    one, other = (clearstory.open(run / "checkpoints" / name).model for name in ("step-000008", "weights-000008"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    with pytest.raises(clearstory.errors.BadInput, match=r"there is no folder .*step-000007"):
        clearstory.open(run / "checkpoints" / "step-000007")


def test_the_setting_changes_how_many_and_0_keeps_none(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    for count, steps in ((0, []), (3, [1, 8]), (4, [1, 3, 8])):
        events = all_events(recipe(text, tmp_path / f"run-{count}", **{"training.weight_checkpoints": count}))
        assert list(list_weights(tmp_path / f"run-{count}")) == steps
        assert [e.step for e in events if isinstance(e, ModelSaved) and e.kind == "weights"] == steps


def test_a_longer_run_keeps_as_many(tmp_path: Path) -> None:
    text, more = text_file(tmp_path), {"training.weight_checkpoints": 5}
    all_events(recipe(text, tmp_path / "run", steps=20, **more))
    assert list(list_weights(tmp_path / "run")) == [1, 3, 8, 20]
    all_events(recipe(text, tmp_path / "run", steps=60, resume=True, **more))
    assert list(list_weights(tmp_path / "run"))[-1] == 60
    assert len(list_weights(tmp_path / "run")) == 4


@pytest.mark.parametrize(
    ("model", "expected"),
    [("hmm", [1, 2, 3]), ("ngram", []), ("lstm", [1, 2, 3])],
)
def test_every_family_that_improves_step_by_step_keeps_weights(model: str, expected: list[int], tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hmm": {"states": 4}, "lstm": {"width": 8, "hidden_size": 8}, "ngram": {"order": 2}}
    name = {"model": {"name": model, **sizes[model]}}
    small = recipe(text_file(tmp_path), tmp_path / "run", steps=3)
    values = {"text": small.text, "out": small.out, "steps": 3, "tokenizer": "characters", **name}
    all_events(clearstory.recipes.settings.training.build_train_recipe(values, {"training.device": "cpu"}))
    assert list(list_weights(tmp_path / "run")) == expected
    for folder in list_weights(tmp_path / "run").values():
        clearstory.evaluate(folder, texts=["the cat"])


def test_with_lora_a_weight_checkpoint_is_an_adapter(run: Path, tmp_path: Path) -> None:
    values = {"text": (str(run.parent / "text.txt"),), "out": tmp_path / "run", "init": str(run), "steps": 2}
    lora = {"lora.rank": 2, "training.batch_size": 4, "training.context": 8, "training.device": "cpu"}
    all_events(clearstory.recipes.settings.training.build_train_recipe({**values, **lora}))
    folder = list_weights(tmp_path / "run")[2]
    assert (folder / ADAPTER_CONFIG).is_file()
    assert not (folder / "model.safetensors").exists()
    assert clearstory.evaluate(folder, texts=["the cat"]).score.nats_per_token > 0
