"""A run that is killed a hundred times, at any instant, ends as an uninterrupted run: bit for bit."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory import durable
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.events import RunPrepared, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.training import checkpoint
from clearstory.training.metrics_log import read_metrics
from clearstory.training.weight_checkpoints import list_weights

# A child trains and dies; with one thread, what other threads of a long test run hold does not matter to it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")

STEPS, SAVE_STEPS, EVAL_STEPS = 40, 4, 8


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    yield
    durable.hooks.clear()


def text(folder: Path) -> Path:
    """A few thousand characters with something to learn in them."""
    rng = random.Random(0)
    words = ("the ", "cat ", "sat ", "on ", "a mat. ", "dogs ", "bark ", "at ", "night. ", "\n")
    file = folder / "text.txt"
    file.write_text("".join(rng.choice(words) for _ in range(600)), encoding="utf-8")
    return file


def recipe(file: Path, home: Path, steps: int = STEPS) -> TrainRecipe:
    """A tiny model with everything that is random: dropout, shuffled windows, micro-batches."""
    return build_train_recipe(
        {
            "text": (str(file),),
            "out": home / "run",
            "resume": True,
            "steps": steps,
            "tokenizer": "characters",
            "model": {"name": "clear", "width": 16, "layers": 1, "heads": 2, "head_dim": 8, "dropout": 0.2},
            "data": {"cache": home / "cache"},
            "training": {
                "optimizer": "muon", "batch_size": 4, "gradient_accumulation_steps": 2, "context": 8,
                "warmup_steps": 5, "save_steps": SAVE_STEPS, "eval_steps": EVAL_STEPS, "eval_tokens": 64,
                "weight_checkpoints": 12 if steps == STEPS else 3,
                "precision": "fp32", "compile": "off", "device": "cpu", "threads": 1,
            },
        }
    )  # fmt: skip


def orphans(home: Path) -> list[Path]:
    """Temporaries that no one will ever rename."""
    return [path for path in home.rglob("*") if durable.TEMPORARY_NAME.match(path.name)]


def live(recipe: TrainRecipe, home: Path, saving: mmap.mmap) -> None:
    """What the child does: resume the run and train to its end; sets whether it is writing now."""
    durable.hooks.append(lambda label, path: saving.__setitem__(0, 1))
    for event in train_events(recipe):
        saving[0] = 0
        if isinstance(event, RunPrepared):
            assert not orphans(home), "a run that begins removes what killed ones left"
    assert isinstance(event, TrainingResult)


def lived(recipe: TrainRecipe, home: Path, saving: mmap.mmap, seconds: float | None = None) -> bool:
    """Fork from this warm process, let it train for so long, and kill it; whether it was done before."""
    child = os.fork()
    if child == 0:
        try:
            live(recipe, home, saving)
        except BaseException:
            (home / "failed.txt").write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert not (home / "failed.txt").exists(), (home / "failed.txt").read_text(encoding="utf-8")
    return os.WIFEXITED(status)


def metrics_without_times(run: Path) -> list[dict[str, Any]]:
    """The records of a run without the times."""
    return [
        {key: value for key, value in row.items() if not key.endswith("seconds")}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_end(home: Path, alone: Path) -> None:
    """Every loss, the last checkpoint and the best model are those of the uninterrupted run, bit for bit."""
    assert not orphans(home)
    run, reference = home / "run", alone / "run"
    assert metrics_without_times(run) == metrics_without_times(
        reference
    )  # json writes a float so that it is read back the same
    assert [path.name for path in checkpoint.list_checkpoints(run)] == [
        path.name for path in checkpoint.list_checkpoints(reference)
    ]
    weights = list_weights(run)
    assert weights.keys() == list_weights(reference).keys()
    assert len(weights) > 1
    for step, folder in weights.items():
        assert files(folder) == files(list_weights(reference)[step])
    one, other = (checkpoint.load_checkpoint(checkpoint.list_checkpoints(each)[-1]) for each in (run, reference))
    assert one.step == other.step
    for ours, theirs in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert one.values["best_criterion"] == other.values["best_criterion"]
    assert files(run / "model") == files(reference / "model")


KILLS = 100 if os.environ.get("CI") else 30


@pytest.mark.parametrize("kills", [KILLS, pytest.param(300, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_instants_ends_as_an_uninterrupted_one(tmp_path: Path, kills: int) -> None:
    file = text(tmp_path)
    saving = mmap.mmap(-1, 1)  # shared with the children
    homes = (tmp_path / f"life-{number}" for number in range(1000))
    alone = next(homes)
    alone.mkdir()
    for _ in train_events(recipe(file, alone)):  # imports all that the children will need
        pass
    again = next(homes)
    again.mkdir()
    begun = time.monotonic()
    assert lived(recipe(file, again), again, saving)
    whole = time.monotonic() - begun
    same_end(again, alone)

    rng, died, while_saving, read, ended = random.Random(0), 0, 0, 0, 0
    longest = 0.25 * whole  # some lives reach a save or two; some end before they have read their text
    while died < kills or not (while_saving and read):
        home = next(homes)
        home.mkdir()
        while died < kills or not (while_saving and read):
            if lived(recipe(file, home), home, saving, rng.uniform(0, longest)):
                break
            died += 1
            while_saving += saving[0]
            if died % 10 == 0 and not read:
                longest *= 1.5  # on a busy machine a life gets less done than the one that was measured
            for folder in checkpoint.list_checkpoints(home / "run"):
                checkpoint.load_checkpoint(folder)
                read += 1
        else:
            assert lived(recipe(file, home), home, saving)
        same_end(home, alone)
        ended += 1
    assert died >= kills
    print(json.dumps({"kills": died, "while_saving": while_saving, "checkpoints_read": read, "runs": ended}))


def test_a_run_killed_at_every_disk_operation_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    file = text(tmp_path)
    saving = mmap.mmap(-1, 1)
    alone, home = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, home):
        folder.mkdir()
    for _ in train_events(recipe(file, alone, SAVE_STEPS)):
        pass

    def die_at(place: int) -> None:
        left = [place]

        def stop(label: str, path: Path) -> None:
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

        durable.hooks[:] = [stop]

    place = 0
    while True:  # the first life dies at its first disk operation, the next at its second, until one has no more
        die_at(place)
        if lived(recipe(file, home, SAVE_STEPS), home, saving):
            break
        for folder in checkpoint.list_checkpoints(home / "run"):
            checkpoint.load_checkpoint(folder)
        place += 1
    assert place > 30
    same_end(home, alone)
    print(json.dumps({"steps_on_disk": place}))


def test_an_ngram_run_stopped_between_orders_counts_again_and_has_each_record_once(tmp_path: Path) -> None:
    def counting(home: Path) -> TrainRecipe:
        training = {"save_steps": 1, "eval_steps": 1, "eval_tokens": 64, "device": "cpu", "threads": 1}
        settings = {"out": home, "resume": True, "tokenizer": "characters", "model": {"name": "ngram", "order": 3}}
        return build_train_recipe({"text": (str(file),), **settings, "training": training})

    file = text(tmp_path)
    for _ in train_events(counting(tmp_path / "alone" / "run")):
        pass
    stopped = train_events(counting(tmp_path / "stopped" / "run"))
    while not checkpoint.list_checkpoints(tmp_path / "stopped" / "run"):
        next(stopped)
    stopped.close()
    for _ in train_events(counting(tmp_path / "stopped" / "run")):
        pass
    assert metrics_without_times(tmp_path / "stopped" / "run") == metrics_without_times(tmp_path / "alone" / "run")
    assert files(tmp_path / "stopped" / "run" / "model") == files(tmp_path / "alone" / "run" / "model")
