"""Model index: the models and runs of a folder, read from small files without opening models or importing torch."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Literal

from clearstory.durable import current_path
from clearstory.errors import BadInput

USAGE_FOLDER = Path(".clearstory") / "used"
"""Folder of empty files whose modification times record when each model was last used."""

MAX_DEPTH = 4
"""Levels of subfolders that are searched."""

MAX_FOLDERS = 3000
"""Folders that are searched at most, so that a studio over a whole disk responds."""

SKIPPED_FOLDERS = frozenset({"checkpoints", "tokenizer", "node_modules", "site-packages", "__pycache__", "venv"})
MODEL_SUFFIXES = (".gguf", ".arpa", ".arpa.gz")
CHECKPOINT_NAME = re.compile(r"step-(\d{6,})")
MAX_HEADER_BYTES = 64 * 2**20
"""The largest safetensors header that is read."""

RECORD_TAIL_BYTES = 2**16
"""Bytes at the end of metrics.jsonl in which the last step is searched."""


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
    problem: str | None = None


def list_models(root: Path) -> tuple[list[IndexedModel], bool]:
    """The models and runs under a folder, last used first, and whether the search was complete.

    Symbolic links to model folders and runs are followed; other links are not, since they may form cycles.
    Raises BadInput if the folder does not exist.
    """
    if not root.is_dir():
        raise BadInput(f"the studio's folder {root} no longer exists; start the studio with an existing folder")
    models: list[IndexedModel] = []
    visited = 0
    queue = [(root, 0)]
    while queue and visited < MAX_FOLDERS:
        folder, depth = queue.pop(0)
        visited += 1
        entry = index_folder(root, folder)
        if entry is not None:
            models.append(entry)
            if folder != root:
                continue
        for each in visible_children(folder):
            if each.is_dir() and each.is_symlink():
                linked = index_folder(root, each)
                models += [] if linked is None else [linked]
            elif each.is_dir():
                if depth < MAX_DEPTH and each.name not in SKIPPED_FOLDERS and not (entry and each.name == "model"):
                    queue.append((each, depth + 1))
            elif each.name.endswith(MODEL_SUFFIXES):
                models.append(index_file(root, each))
    models = [
        replace(each, last_used=max(each.modified, modification_time(usage_file(root, each.name)))) for each in models
    ]
    return sorted(models, key=lambda each: -each.last_used), not queue


def visible_children(folder: Path) -> Iterator[Path]:
    """The entries of a folder without hidden ones, sorted; none if it cannot be read."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    yield from (each for each in inside if not each.name.startswith("."))


def find_model(root: Path, name: str) -> IndexedModel:
    """The model or run at a path relative to the folder, at any depth. Raises BadInput if there is none."""
    if PurePosixPath(name).is_absolute() or name.startswith("~"):
        raise BadInput(
            f"{name} is outside of the studio's folder; link it into the folder: "
            f"ln -s {quote(name)} {quote(str(root / PurePosixPath(name).name))}"
        )
    path = resolve_name(root, name)
    if path.is_file() and path.name.endswith(MODEL_SUFFIXES):
        return index_file(root, path)
    one = index_folder(root, path) if path.is_dir() else None
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
    given = PurePosixPath(name)
    if not name or given.is_absolute() or ".." in given.parts or "\0" in name or "\\" in name:
        raise BadInput(f"'{name}' is not a path inside the studio's folder; choose a model from the list")
    return root / given


def relative_name(root: Path, path: Path) -> str:
    """A path relative to the studio's folder, with forward slashes."""
    return path.relative_to(root).as_posix()


def index_folder(root: Path, folder: Path) -> IndexedModel | None:
    """A folder as a run, an adapter or a model; None if it is none of them."""
    if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
        model = current_path(folder / "model")
        steps = tuple(step for step, _ in list_checkpoints(folder))
        if not (model / "config.json").is_file() and not (model / "adapter_config.json").is_file():
            facts: dict[str, Any] = {
                "modified": modification_time(folder / "config.yaml"),
                "problem": "has no model yet",
            }
        else:
            facts = read_model_facts(model)
        return IndexedModel(
            name=relative_name(root, folder), kind="run", steps=steps, loss=last_train_loss(folder), **facts
        )
    if (folder / "adapter_config.json").is_file():
        return IndexedModel(name=relative_name(root, folder), kind="adapter", **read_model_facts(folder))
    if (folder / "config.json").is_file() and is_model_config(read_json_object(folder / "config.json")):
        return IndexedModel(name=relative_name(root, folder), kind="folder", **read_model_facts(folder))
    return None


def is_model_config(config: dict[str, Any]) -> bool:
    """Whether a config.json belongs to a model: other programs use this file name as well."""
    return any(key in config for key in ("model_type", "architectures", "clearstory"))


def read_model_facts(model: Path) -> dict[str, Any]:
    """The fields of IndexedModel that config.json and the safetensors headers give."""
    config = read_json_object(model / "config.json")
    own = config.get("clearstory")
    saved_card = own.get("card") if isinstance(own, dict) else None
    card: dict[str, Any] = saved_card if isinstance(saved_card, dict) else {}
    weights = sorted(model.glob("*.safetensors"))
    parameters = card.get("parameters") or sum(map(count_parameters, weights)) or None
    family = card.get("family") or config.get("model_type")
    bits = card.get("bits_per_byte")
    texts = card.get("trained_on")
    return {
        "family": family if isinstance(family, str) else None,
        "parameters": parameters if isinstance(parameters, int) else None,
        "bits_per_byte": bits if isinstance(bits, float) else None,
        "trained_on": tuple(str(text[0]) for text in texts if text) if isinstance(texts, list) else (),
        "modified": max(map(modification_time, [model / "config.json", *weights])),
        "size_bytes": sum(file_size(each) for each in weights),
        "problem": None if weights else "has no weights (a .safetensors file)",
    }


def index_file(root: Path, file: Path) -> IndexedModel:
    """A single-file model (.gguf or .arpa)."""
    family = "ngram" if ".arpa" in file.name else None
    return IndexedModel(
        name=relative_name(root, file),
        kind="file",
        family=family,
        modified=modification_time(file),
        size_bytes=file_size(file),
    )


def last_train_loss(run: Path) -> float | None:
    """The training loss of a run's last step, from the end of its metrics.jsonl; None if there is none."""
    try:
        with (run / "metrics.jsonl").open("rb") as opened:
            opened.seek(max(0, opened.seek(0, 2) - RECORD_TAIL_BYTES))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the first line may be cut off, the last one incomplete
        if isinstance(record, dict) and record.get("kind") == "step" and isinstance(loss := record.get("loss"), float):
            return loss if math.isfinite(loss) else None
    return None


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run as (step, path), oldest first."""
    try:
        inside = list((run / "checkpoints").iterdir())
    except OSError:
        return []
    return sorted((int(match[1]), path) for path in inside if (match := CHECKPOINT_NAME.fullmatch(path.name)))


def count_parameters(file: Path) -> int:
    """The number of elements in a safetensors file, from its header; 0 if it cannot be read."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length)) if length <= MAX_HEADER_BYTES else {}
        return sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    except (OSError, ValueError, struct.error, TypeError, KeyError, AttributeError):
        return 0


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it cannot be read."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def modification_time(path: Path) -> float:
    """When a file was last modified, in seconds since 1970; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def file_size(path: Path) -> int:
    """A file's size in bytes; 0 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
