"""The folder of a training run: its files, resuming, and what is recorded of the machine.

runs/NAME/
    config.yaml         every setting, resolved: enough to repeat the run
    environment.json    the machine and the versions
    metrics.jsonl       training and evaluation metrics, one JSON object per line
    tokenizer/          the tokenizer
    checkpoints/        model and optimizer states to resume from, and weights of about twelve steps
    model/              the best model
    curve.svg           the learning curve
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from clearstory import __version__, durable
from clearstory.errors import BadSetting, CheckpointMismatch, FolderExists
from clearstory.recipes.settings.schema import flatten_keys, to_plain
from clearstory.recipes.settings.training import LENGTH_SETTINGS, TrainRecipe, build_train_recipe
from clearstory.recipes.settings.training_presets import BASE_WIDTHS
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.text.sources import absolute_source
from clearstory.text.train_tokenizer import KINDS
from clearstory.training import checkpoint

CHANGEABLE_ON_RESUME = {"out", "resume", "overwrite", "minutes", "cpu_seconds", "steps", "data.cache"}
"""Settings that may differ when a run is resumed: they change where and how long, not what is trained."""

SETTINGS_FILES = ("config.yaml", "environment.json")
"""Files that a run is resumed by."""

RESULT_FILES = ("metrics.jsonl", "curve.svg", "digits.png")
"""Files of a run's results. A change is reported when the run is resumed."""

MAX_RECORD_BYTES = 2**24

RESOLVED_BY_RUN = {
    "training.device",
    "training.precision",
    "training.matmul",
    "training.threads",
    "training.align_documents",
    "parameters",
    "objective",
    "model.pooler",
    "data.pairs",
}
LEARNING_RATES = {"training.learning_rate", "training.muon_learning_rate"}
"""Settings that a run resolves itself where they are not set: learning rates where they are scaled by width, and the
sizes of `clear`.
"""


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run folder."""

    path: Path

    @property
    def config_file(self) -> Path:
        """Every setting, resolved."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """Training and evaluation metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tokenizer_folder(self) -> Path:
        """The tokenizer of the run."""
        return self.path / "tokenizer"

    @property
    def model_folder(self) -> Path:
        """The best model of the run."""
        return self.path / "model"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return self.config_file.is_file()

    @property
    def has_tokenizer(self) -> bool:
        """Whether the run's tokenizer is saved."""
        return (self.tokenizer_folder / "tokenizer.json").is_file()

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint; None where there is none."""
        checkpoints = checkpoint.list_checkpoints(self.path)
        return checkpoints[-1] if checkpoints else None

    def clear(self) -> None:
        """Delete the files of an earlier run, and nothing else.

        config.yaml stays until it is replaced, so that a run killed in between can still be overwritten.
        """
        if not self.exists:
            return
        for name in ("checkpoints", "model", "tokenizer"):
            if (self.path / name).is_dir():
                durable.remove_folder(self.path / name)
        for name in (*RESULT_FILES, "environment.json", durable.CHECKSUMS):
            durable.remove_file(self.path / name)


@contextmanager
def lock_run_folder(recipe: TrainRecipe) -> Iterator[tuple[TrainRecipe, str | None]]:
    """A block in which no other process can write the run folder; the recipe with its path, and a note where the disk
    has no locks.

    Raises FolderInUse with the process that writes it.
    """
    path = recipe.out or Path("runs") / f"{recipe.default_name}-{datetime.now():%Y%m%d-%H%M%S}"
    check_no_file_in_path(path)
    with durable.lock_folder(path) as lock:
        yield replace(recipe, out=path), lock.note


def open_run_folder(recipe: TrainRecipe) -> tuple[RunFolder, TrainRecipe]:
    """The run folder of a recipe, and the recipe of the run, merged with the saved one on resume. Writes nothing yet;
    only removes leftovers of killed writes.

    Raises FolderExists for a folder that has files, CheckpointMismatch for a resumed run with other settings.
    """
    path = recipe.out
    assert path is not None, "lock_run_folder sets it"
    folder = RunFolder(path)
    if path.is_dir():
        durable.remove_stale(path)
    if recipe.resume and folder.exists:
        durable.verify_folder(path, only=SETTINGS_FILES)
        return folder, resume_recipe(folder, recipe)
    if not recipe.text:
        raise BadSetting("there is no text to train on; name files or folders, or corpus:kjv")
    if has_files(path) and not recipe.overwrite:
        what = "a run" if folder.exists else "files"
        raise FolderExists(f"{path} already has {what}; --resume continues a run, --overwrite replaces what is there")
    return folder, replace(recipe, out=path)


def changed_results(folder: RunFolder) -> str | None:
    """A sentence on the result files of a finished run that have changed since; None if none has."""
    changed = durable.verify_folder(folder.path, only=RESULT_FILES, unread=RESULT_FILES)
    return f"{', '.join(changed)} of {folder.path} changed after the run had ended" if changed else None


def has_files(folder: Path) -> bool:
    """Whether a folder holds anything but its lock, and digests of files that could not be written."""
    return folder.is_dir() and any(path.name not in (durable.LOCK_FILE, durable.CHECKSUMS) for path in folder.iterdir())


def check_no_file_in_path(folder: Path) -> None:
    """Raises FolderExists where a file has the name of the folder or of one of its parents."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise FolderExists(f"{path} is a file, and {folder} is to be a folder; choose another --out")


def resume_recipe(folder: RunFolder, recipe: TrainRecipe) -> TrainRecipe:
    """The saved recipe of a run with the changeable settings of this call. Raises CheckpointMismatch for other changes.

    A call that names the text is a complete recipe; one without a text only names differences from the defaults.
    """
    saved = with_absolute_paths(build_train_recipe(read_yaml(folder.config_file)))
    default = build_train_recipe({"model": recipe.model.name, "init": recipe.init, "lora": {"rank": recipe.lora.rank}})
    old, new, defaults = (
        flatten_keys(TrainRecipe, to_plain(each)) for each in (saved, with_absolute_paths(recipe), default)
    )
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        resolved = (
            key in RESOLVED_BY_RUN
            or (saved.model.name in ("clear", "recall") and key.startswith("model."))
            or (key in LEARNING_RATES and (saved.init or saved.model.name in BASE_WIDTHS))
        )
        unset = now == defaults.get(key) and (resolved or not recipe.text)
        if key not in CHANGEABLE_ON_RESUME and before != now and not unset:
            raise CheckpointMismatch(
                f"the run in {folder.path} was made with {key} {format_setting(before)}, and now it is "
                f"{format_setting(now)}; resume with the settings it was made with, or choose another --out"
            )
    length: dict[str, Any] = {name: getattr(recipe, name) for name in LENGTH_SETTINGS}
    if not any(length.values()):
        length = {name: getattr(saved, name) for name in LENGTH_SETTINGS}
    return replace(saved, out=folder.path, resume=True, overwrite=False, **length)


def with_absolute_paths(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with absolute paths, as it is saved, so that it works from any working directory."""
    tokenizer, cache = recipe.tokenizer, recipe.data.cache
    if tokenizer is not None and tokenizer.partition(":")[0] not in KINDS:
        tokenizer = absolute_source(tokenizer)
    data = replace(recipe.data, cache=None if cache is None else cache.absolute())
    init = None if recipe.init is None else absolute_source(recipe.init)
    return replace(recipe, text=tuple(map(absolute_source, recipe.text)), init=init, tokenizer=tokenizer, data=data)


def format_setting(value: Any) -> str:
    """The value of a setting as it is typed on the command line."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "not set"
    return "not set" if value is None else str(value)


def write_run_settings(folder: RunFolder, recipe: TrainRecipe, fingerprints: Mapping[str, Any]) -> None:
    """Write config.yaml, and environment.json with the fingerprints of tokenizer, corpus and initial model."""
    import torch

    from clearstory.models.matmul.measurement_cache import processor_name

    environment = durable.json_text(
        {
            "clearstory": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "system": platform.platform(),
            "processor": processor_name(),
            "gpu": torch.cuda.get_device_name() if recipe.training.device.startswith("cuda") else None,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **fingerprints,
        }
    )
    contents = {"config.yaml": to_yaml(with_absolute_paths(recipe)), "environment.json": environment}
    # The digests of files that the run is about to change are forgotten.
    durable.record_files(folder.path, contents, forget=True)
    durable.replace_files(folder.path, {name: text.encode() for name, text in contents.items()})


def check_same_corpus(folder: RunFolder, fingerprint: str) -> None:
    """Raises CheckpointMismatch where the text has changed since the run started."""
    check_fingerprint(folder, "corpus", "text", fingerprint)


def check_same_initial_model(folder: RunFolder, fingerprint: str) -> None:
    """Raises CheckpointMismatch where the initial model has changed since the run started."""
    check_fingerprint(folder, "init", "initial model", fingerprint)


def check_fingerprint(folder: RunFolder, key: str, what: str, fingerprint: str) -> None:
    """Compare a fingerprint with that in environment.json; passes where none is recorded."""
    path = folder.path / "environment.json"
    if not durable.is_regular_file(path):
        return
    found = durable.parse_json(durable.read_file(path, MAX_RECORD_BYTES), path)
    before = found.get(key) if isinstance(found, dict) else None
    if before is not None and before != fingerprint:
        raise CheckpointMismatch(
            f"the {what} of the run in {folder.path} has changed since the run started (its hash was "
            f"{str(before)[:8]} and "
            f"is {fingerprint[:8]}); restore it, or choose another --out"
        )
