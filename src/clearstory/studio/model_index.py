"""Model index: the models and runs of a folder, read from small files without opening models or importing torch.

A folder that cannot be read as a model is listed with its problem, and never keeps the others from being listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Literal

from clearstory.durable import current_path, is_regular_file
from clearstory.errors import BadInput, ClearstoryError
from clearstory.http.display_text import displayable, is_unicode, one_line
from clearstory.studio.bounded_files import list_entries, read_json
from clearstory.studio.finetuning_runs import labels_of_model, model_task, reported_metrics
from clearstory.studio.model_facts import (
    file_size,
    last_train_loss,
    list_checkpoints,
    modification_time,
    read_model_facts,
)

USAGE_FOLDER = Path(".clearstory") / "used"
"""Folder of empty files whose modification times record when each model was last used."""

MAX_DEPTH = 4
"""Levels of subfolders that are searched."""

MAX_FOLDERS = 3000
"""Folders that are searched at most, so that a studio over a whole disk responds."""

MAX_PATH_BYTES, MAX_NAME_BYTES = 3000, 255
"""The longest path in the folder, and the longest name of one file or folder."""

SKIPPED_FOLDERS = frozenset({"checkpoints", "tokenizer", "node_modules", "site-packages", "__pycache__", "venv"})
MODEL_SUFFIXES = (".gguf", ".arpa", ".arpa.gz")


@dataclass(frozen=True, kw_only=True)
class IndexedModel:
    """A model or run of the studio's folder.

    Args:
        name: its path relative to the folder; "." for the folder itself.
        kind: run, folder, adapter or file.
        family: the model family, if a file names it.
        parameters: number of parameters; None if unknown without opening the model.
        bits_per_byte: validation score in bits per byte, if it was measured.
        loss: training loss of a run's last step, in nats per token; None if it is not a run.
        trained_on: names of the training texts.
        modified: when the model was last written, in seconds since 1970.
        last_used: when a studio last used the model, or `modified` if that is later.
        size_bytes: bytes of its weights.
        steps: optimizer steps of its checkpoints.
        task: classify or tag, of a model with a head for labels.
        labels: its labels, in the order of their ids.
        metric: the metric of a fine-tuning run by which its best model was selected.
        score: its value.
        problem: why it cannot be opened, as the end of a sentence ("has no weights"); None if it can.
    """

    name: str
    kind: Literal["run", "folder", "adapter", "file"]
    family: str | None = None
    parameters: int | None = None
    bits_per_byte: float | None = None
    loss: float | None = None
    trained_on: tuple[str, ...] = ()
    modified: float = 0.0
    last_used: float = 0.0
    size_bytes: int = 0
    steps: tuple[int, ...] = ()
    task: str | None = None
    labels: tuple[str, ...] = ()
    metric: str | None = None
    score: float | None = None
    problem: str | None = None


def list_models(root: Path) -> tuple[list[IndexedModel], bool]:
    """The models and runs under a folder, last used first, and whether the search was complete.

    Symbolic links to model folders and runs are followed; other links are not, since they may form cycles.
    Raises BadInput if the folder does not exist.
    """
    if not root.is_dir():
        raise BadInput(f"the studio's folder {root} no longer exists; start the studio with an existing folder")
    models: list[IndexedModel] = []
    queue = [(root, 0)]
    visited = 0
    while visited < min(len(queue), MAX_FOLDERS):
        folder, depth = queue[visited]
        visited += 1
        entry = index_safely(root, folder, index_folder)
        if entry is not None:
            models.append(entry)
            if folder != root:
                continue
        for path, is_folder in visible_children(folder):
            if is_folder and path.is_symlink():
                found = index_safely(root, path, index_folder)
                models += [] if found is None else [found]
            elif is_folder:
                if depth < MAX_DEPTH and path.name not in SKIPPED_FOLDERS and not (entry and path.name == "model"):
                    queue.append((path, depth + 1))
            elif path.name.endswith(MODEL_SUFFIXES):
                found = index_safely(root, path, index_file)
                models += [] if found is None else [found]
    models = [
        replace(each, last_used=max(each.modified, modification_time(usage_file(root, each.name)))) for each in models
    ]
    return sorted(models, key=lambda each: -each.last_used), visited == len(queue)


def index_safely(root: Path, path: Path, index: Callable[[Path, Path], IndexedModel | None]) -> IndexedModel | None:
    """The entry of a path; with a problem if its name is not UTF-8, or if it cannot be indexed for any reason."""
    try:
        entry = index(root, path)
    except Exception as error:  # one odd folder must never keep the others from being listed
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        kind: Literal["folder", "file"] = "file" if is_regular_file(path) else "folder"
        return IndexedModel(name=relative_name(root, path), kind=kind, problem=f"cannot be listed ({reason})")
    if entry is None or (is_unicode(entry.name) and "\\" not in entry.name):
        return entry
    what = "a name that is not UTF-8" if not is_unicode(entry.name) else "a backslash in its name"
    return replace(entry, name=displayable(entry.name), problem=f"has {what}, so it cannot be opened here; rename it")


def visible_children(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The entries of a folder without hidden ones, sorted, each with whether it is a folder; none if unreadable."""
    for path in list_entries(folder):
        try:
            yield path, path.is_dir()
        except OSError:
            continue


def find_model(root: Path, name: str) -> IndexedModel:
    """The model or run at a path relative to the folder, at any depth. Raises BadInput if there is none."""
    if PurePosixPath(name).is_absolute() or name.startswith("~"):
        raise BadInput(
            f"{name} is outside of the studio's folder; link it into the folder: "
            f"ln -s {quote(name)} {quote(str(root / PurePosixPath(name).name))}"
        )
    path = resolve_name(root, name)
    if is_regular_file(path) and path.name.endswith(MODEL_SUFFIXES):
        return index_file(root, path)
    one = index_safely(root, path, index_folder) if path.is_dir() else None
    if one is None:
        what = "holds no model or run" if path.is_dir() else "does not exist" if not path.exists() else "is not a model"
        raise BadInput(
            f"'{name}' {what}: a model is a folder with config.json and .safetensors, a .gguf or an .arpa file; to use "
            f"one from another folder: ln -s ITS-PATH {quote(str(root))}"
        )
    return one


def usage_file(root: Path, name: str) -> Path:
    """The file whose modification time records when a model was last used; checkpoints share the file of their run."""
    return root / USAGE_FOLDER / f"{name.partition('/checkpoints/')[0].replace('/', '.')}.used"


def mark_used(root: Path, name: str) -> None:
    """Record that a model is used now, if the folder is writable."""
    file = usage_file(root, name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError:
        return


def resolve_name(root: Path, name: str) -> Path:
    """The path of a model name. Raises BadInput if it is outside of the studio's folder."""
    if not is_name_inside(root, name):
        raise BadInput(
            f"'{one_line(name, 100)}' is not a path inside the studio's folder; choose a model from the list"
        )
    return root / PurePosixPath(name)


def is_name_inside(root: Path, name: str) -> bool:
    """Whether a name is a path that can exist inside the studio's folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or not is_unicode(name):
        return False
    return len(f"{root}/{name}".encode()) <= MAX_PATH_BYTES and all(
        len(part.encode()) <= MAX_NAME_BYTES for part in path.parts
    )


def relative_name(root: Path, path: Path) -> str:
    """A path relative to the studio's folder, with forward slashes."""
    return path.relative_to(root).as_posix()


def index_folder(root: Path, folder: Path) -> IndexedModel | None:
    """A folder as a run, an adapter or a model; None if it is none of them."""
    name = relative_name(root, folder)
    has_config = os.path.lexists(folder / "config.json")
    if is_regular_file(folder / "config.yaml") and not has_config:
        model = current_path(folder / "model")
        facts: dict[str, Any] = {
            "modified": modification_time(folder / "config.yaml"),
            "problem": "has no model yet",
        }
        if any(os.path.lexists(model / each) for each in ("config.json", "adapter_config.json")):
            facts = {**read_model_facts(model), **head_facts(model), **metric_facts(folder)}
        steps = tuple(step for step, _ in list_checkpoints(folder))
        return IndexedModel(name=name, kind="run", steps=steps, loss=last_train_loss(folder), **facts)
    if is_regular_file(folder / "adapter_config.json"):
        return IndexedModel(name=name, kind="adapter", **read_model_facts(folder), **head_facts(folder))
    # A config.json that is not a model's belongs to another program; one that cannot be read is listed as a problem.
    if has_config and may_be_model_config(folder / "config.json"):
        return IndexedModel(name=name, kind="folder", **read_model_facts(folder), **head_facts(folder))
    return None


def head_facts(model: Path) -> dict[str, Any]:
    """The task and the labels of a model with a head for labels."""
    task = model_task(model)
    return {} if task is None else {"task": task, "labels": labels_of_model(model)}


def metric_facts(run: Path) -> dict[str, Any]:
    """The metric of a fine-tuning run and its value; nothing for other runs, and before it has ended."""
    metric, score = next(iter(reported_metrics(run).items()), (None, None))
    return {"metric": metric, "score": score}


def may_be_model_config(file: Path) -> bool:
    """Whether a config.json belongs to a model, or cannot be read: other programs use this file name as well."""
    try:
        config = read_json(file)
    except ClearstoryError:
        return True
    return any(key in config for key in ("model_type", "architectures", "clearstory"))


def index_file(root: Path, file: Path) -> IndexedModel:
    """A single-file model (.gguf or .arpa)."""
    family = "ngram" if ".arpa" in file.name else None
    return IndexedModel(
        name=relative_name(root, file),
        kind="file",
        family=family,
        modified=modification_time(file),
        size_bytes=file_size(file),
        problem=None if is_regular_file(file) else "is no regular file, so it is not opened",
    )
