"""Runs: the folder in which one training leaves everything it did.

runs/NAME/
    config.yaml         every setting, resolved: enough to repeat the run
    environment.json    the machine and the versions
    metrics.jsonl       what happened, a line each
    tokenizer/          what made tokens of the text
    checkpoints/        to go on from
    model/              to use: the best
    curve.svg           how it learnt
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from clearstory import __version__, durable
from clearstory.errors import BadSetting, CheckpointMismatch, FolderExists
from clearstory.recipes.settings.schema import flatten_keys, to_plain
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.recipes.settings.training_presets import BASE_WIDTHS
from clearstory.recipes.settings.training import LENGTH_SETTINGS, TrainRecipe, build_train_recipe
from clearstory.text.documents import absolute_source
from clearstory.text.train_tokenizer import KINDS
from clearstory.training import checkpoint

FREE = {"out", "resume", "overwrite", "minutes", "cpu_seconds", "steps", "data.cache"}
"""Settings that may differ when a run is resumed: they say where and how long, not what."""

DECIDED = {
    "training.device",
    "training.precision",
    "training.threads",
    "training.align_documents",
    "parameters",
    "objective",
    "model.pooler",
    "data.pairs",
}
RATES = {"training.learning_rate", "training.muon_learning_rate"}
"""Settings that a run decides for itself where they are not set; rates where they go by width, `clear` its shape."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder by its parts."""

    folder: Path

    @property
    def config(self) -> Path:
        """Every setting, resolved."""
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        """What happened, a line each."""
        return self.folder / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        """What made tokens of the text."""
        return self.folder / "tokenizer"

    @property
    def model(self) -> Path:
        """The best model of the run."""
        return self.folder / "model"

    @property
    def exists(self) -> bool:
        """Whether a run has been here."""
        return self.config.is_file()


def begin(recipe: TrainRecipe) -> tuple[RunFolder, TrainRecipe]:
    """The run folder of a recipe, and the recipe as it will be followed. Nothing but leftovers is touched yet.

    Raises FolderExists where something is already, CheckpointMismatch where a run to be resumed was another.
    """
    folder = recipe.out or Path("runs") / f"{recipe.default_name}-{datetime.now():%Y%m%d-%H%M%S}"
    run = RunFolder(folder)
    check_no_file_in_path(folder)
    if folder.is_dir():
        durable.remove_stale(folder)
    if recipe.resume and run.exists:
        return run, resumed(run, recipe)
    if not recipe.text:
        raise BadSetting("there is no text to learn from; name files or folders, or corpus:kjv")
    if folder.is_dir() and any(folder.iterdir()) and not recipe.overwrite:
        what = "a run" if run.exists else "files"
        raise FolderExists(
            f"{folder} already has {what}; --resume goes on with a run, --overwrite replaces what is there"
        )
    return run, replace(recipe, out=folder)


def check_no_file_in_path(folder: Path) -> None:
    """Raises FolderExists where a file stands in the way of a folder."""
    for place in (folder, *folder.parents):
        if place.is_file():
            raise FolderExists(f"{place} is a file, and {folder} is to be a folder; choose another --out")


def clear(run: RunFolder) -> None:
    """Take away what an earlier run wrote: whatever else lies there is not ours to delete.

    Its config.yaml stays until the new one takes its name, so that a kill in between leaves a run to be overwritten.
    """
    if not run.exists:
        return
    for name in ("checkpoints", "model", "tokenizer"):
        if (run.folder / name).is_dir():
            durable.remove_folder(run.folder / name)
    for name in ("metrics.jsonl", "environment.json", "curve.svg"):
        (run.folder / name).unlink(missing_ok=True)


def resumed(run: RunFolder, recipe: TrainRecipe) -> TrainRecipe:
    """The saved recipe of a run, with what this call may change. Raises CheckpointMismatch naming what it may not.

    A call that names the text is a whole recipe, one that does not says only what differs from the usual.
    """
    then = placed(build_train_recipe(read_yaml(run.config)))
    usual = build_train_recipe({"model": recipe.model.name, "init": recipe.init, "lora": {"rank": recipe.lora.rank}})
    before, now, unsaid = (flatten_keys(TrainRecipe, to_plain(each)) for each in (then, placed(recipe), usual))
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        sizes = then.model.name == "clear" and key.startswith("model.")
        decided = key in DECIDED or sizes or (key in RATES and (then.init or then.model.name in BASE_WIDTHS))
        open = new == unsaid.get(key) and (decided or not recipe.text)
        if key not in FREE and old != new and not open:
            raise CheckpointMismatch(
                f"the run in {run.folder} was made with {key} {said(old)}, and now it is {said(new)}; "
                "resume with the settings it was made with, or choose another --out"
            )
    budget: dict[str, Any] = {name: getattr(recipe, name) for name in LENGTH_SETTINGS}
    if not any(budget.values()):
        budget = {name: getattr(then, name) for name in LENGTH_SETTINGS}
    return replace(then, out=run.folder, resume=True, overwrite=False, **budget)


def placed(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe as it is written down: what it reads is found from any folder."""
    tokenizer, cache = recipe.tokenizer, recipe.data.cache
    if tokenizer is not None and tokenizer.partition(":")[0] not in KINDS:
        tokenizer = absolute_source(tokenizer)
    data = replace(recipe.data, cache=None if cache is None else cache.absolute())
    init = None if recipe.init is None else absolute_source(recipe.init)
    return replace(recipe, text=tuple(map(absolute_source, recipe.text)), init=init, tokenizer=tokenizer, data=data)


def said(value: Any) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "not set"
    return "not set" if value is None else str(value)


def describe(run: RunFolder, recipe: TrainRecipe, decided: Mapping[str, Any]) -> None:
    """Write down what is run, and where."""
    import torch

    durable.write_text(run.config, to_yaml(placed(recipe)))
    durable.write_json(
        run.folder / "environment.json",
        {
            "clearstory": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "system": platform.platform(),
            "processor": processor_name(),
            "gpu": torch.cuda.get_device_name() if recipe.training.device.startswith("cuda") else None,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **decided,
        },
    )


def same_text(run: RunFolder, fingerprint: str) -> None:
    """Refuse to go on with a text that is not the one the run began with. Raises CheckpointMismatch."""
    same(run, "corpus", "text", fingerprint)


def same_start(run: RunFolder, fingerprint: str) -> None:
    """Refuse to go on beside weights that are not those the run began with. Raises CheckpointMismatch."""
    same(run, "init", "model to go on from", fingerprint)


def same(run: RunFolder, key: str, what: str, fingerprint: str) -> None:
    """Compare a hash with the one that was written down when the run began."""
    try:
        before = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no one knows what it was
    if before != fingerprint:
        raise CheckpointMismatch(
            f"the {what} of the run in {run.folder} has changed since it began (its hash was {before[:8]} and is "
            f"{fingerprint[:8]}); put it back as it was, or choose another --out"
        )


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def last_checkpoint(run: RunFolder) -> Path | None:
    """The newest checkpoint of a run; None where there is none yet."""
    found = checkpoint.list_checkpoints(run.folder)
    return found[-1] if found else None
