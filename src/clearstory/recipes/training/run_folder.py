"""The folder of a training run: its files, resuming, and a record of the machine.

runs/NAME/
    config.yaml         every setting, resolved: enough to repeat the run
    environment.json    the machine and the versions
    metrics.jsonl       training and evaluation metrics, one JSON object per line
    tokenizer/          the tokenizer
    checkpoints/        model and optimizer states to resume from, and weights of about twelve steps
    averaging/          weights of the last evaluations, if they are averaged
    teacher/            outputs of a teacher, if there is one
    model/              the best model
    curve.svg           the learning curve
    report.json         for fine-tuning: scores with their intervals, for each label; report.html shows them
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
from clearstory.recipes.settings.run_recipe import RecipeT, RunRecipe
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.training import checkpoint

SETTINGS_FILES = ("config.yaml", "environment.json")
"""Files that a run is resumed by."""

TEACHER_FOLDER = "teacher"
"""Folder of a teacher's outputs, which a later run continues."""

RESULT_FILES = ("metrics.jsonl", "curve.svg", "digits.png")
"""Files of a run's results. A change is reported when the run is resumed."""

MAX_RECORD_BYTES = 2**24


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
        """The newest checkpoint; None if there is none."""
        checkpoints = checkpoint.list_checkpoints(self.path)
        return checkpoints[-1] if checkpoints else None

    def clear(self) -> None:
        """Delete the files of an earlier run, and nothing else.

        config.yaml stays until it is replaced, so that a run killed in between can still be overwritten.
        """
        if not self.exists:
            return
        for name in ("checkpoints", "model", "tokenizer", "averaging"):
            if (self.path / name).is_dir():
                durable.remove_folder(self.path / name)
        for name in (*RESULT_FILES, "report.json", "report.html", "environment.json", durable.CHECKSUMS):
            durable.remove_file(self.path / name)


@contextmanager
def lock_run_folder(recipe: RecipeT) -> Iterator[tuple[RecipeT, str | None]]:
    """A block in which no other process can write the run folder; the recipe with its path, and a note where the disk
    has no locks.

    Raises FolderInUse with the process that writes it.
    """
    path = recipe.out or Path("runs") / f"{recipe.default_name}-{datetime.now():%Y%m%d-%H%M%S}"
    check_no_file_in_path(path)
    with durable.lock_folder(path) as lock:
        yield with_out(recipe, path), lock.note


def open_run_folder(recipe: RecipeT) -> tuple[RunFolder, RecipeT]:
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
        return folder, recipe.resumed(read_yaml(folder.config_file), path)
    if not recipe.sources:
        what = "text to train" if recipe.command == "train" else "data to fine-tune"
        raise BadSetting(f"there is no {what} on; give files or folders")
    if has_files(path) and not recipe.overwrite:
        what = "a run" if folder.exists else "files"
        raise FolderExists(f"{path} already has {what}; --resume continues a run, --overwrite replaces the contents")
    return folder, with_out(recipe, path)


def with_out(recipe: RecipeT, path: Path) -> RecipeT:
    """The recipe with this run folder."""
    changed: RecipeT = replace(recipe, out=path)  # type: ignore[type-var]  # every recipe is a dataclass
    return changed


def changed_results(folder: RunFolder) -> str | None:
    """A sentence on the result files of a finished run that have changed since; None if none has."""
    changed = durable.verify_folder(folder.path, only=RESULT_FILES, unread=RESULT_FILES)
    return f"{', '.join(changed)} of {folder.path} changed after the run had ended" if changed else None


def has_files(folder: Path) -> bool:
    """Whether a folder holds anything but its lock, a teacher's outputs and digests of files that were not written."""
    own = (durable.LOCK_FILE, durable.CHECKSUMS, TEACHER_FOLDER)
    return folder.is_dir() and any(path.name not in own for path in folder.iterdir())


def check_no_file_in_path(folder: Path) -> None:
    """Raises FolderExists if a file has the name of the folder or of one of its parents."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise FolderExists(f"{path} is a file, but {folder} must be a folder; choose another --out")


def write_run_settings(
    folder: RunFolder, recipe: RunRecipe, fingerprints: Mapping[str, Any], device: str = "cpu"
) -> None:
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
            "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **fingerprints,
        }
    )
    contents = {"config.yaml": to_yaml(recipe.with_absolute_paths()), "environment.json": environment}
    # The digests of files that the run is about to change are forgotten.
    durable.record_files(folder.path, contents, forget=True)
    durable.replace_files(folder.path, {name: text.encode() for name, text in contents.items()})


def check_same_corpus(folder: RunFolder, fingerprint: str) -> None:
    """Raises CheckpointMismatch if the text has changed since the run started."""
    check_fingerprint(folder, "corpus", "text", fingerprint)


def check_same_initial_model(folder: RunFolder, fingerprint: str) -> None:
    """Raises CheckpointMismatch if the initial model has changed since the run started."""
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
