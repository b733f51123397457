"""Tiny training runs of a second, on a text with some structure."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.training.events import TrainingEvent
from clearstory.recipes.training.loop import train_events

MODEL = {"name": "clear", "width": 16, "layers": 1, "heads": 2, "head_dim": 8}
TRAINING = {
    "batch_size": 4, "context": 8, "learning_rate": 0.01, "warmup_steps": 2,
    "eval_steps": 4, "eval_tokens": 64, "save_steps": 4,
    "precision": "fp32", "compile": "off", "device": "cpu", "threads": 1,
}  # fmt: skip


def words(count: int = 600, seed: int = 0) -> str:
    """A few thousand characters of a small language."""
    rng = random.Random(seed)
    return "".join(
        rng.choices(("the ", "cat ", "sat ", "on ", "a mat. ", "dogs ", "bark ", "at ", "night. ", "\n"), k=count)
    )


def text_file(folder: Path, name: str = "text.txt", **kind: Any) -> Path:
    """That text as a file."""
    file = folder / name
    file.write_text(words(**kind), encoding="utf-8")
    return file


def recipe(file: Path | str, out: Path, **more: Any) -> TrainRecipe:
    """The recipe of a tiny run of eight steps; `more` overrides it, nested or dotted."""
    usual = {"text": (str(file),), "out": out, "steps": 8, "tokenizer": "characters"}
    return build_train_recipe({**usual, "model": MODEL, "training": TRAINING}, more)


def flags(file: Path, out: Path, *more: str) -> list[str]:
    """The same run as a command line."""
    said = ["train", str(file), "--out", str(out), "--steps", "8", "--tokenizer", "characters"]
    said += ["--model", str(MODEL["name"])]
    said += [f"--model.{key}={value}" for key, value in MODEL.items() if key != "name"]
    said += [f"--training.{key}={value}" for key, value in TRAINING.items()]
    return [*said, *more]


def all_events(recipe: TrainRecipe) -> list[TrainingEvent]:
    """All events of a run."""
    return list(train_events(recipe))


def metrics_without_times(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
