"""Found: which models and runs lie in a folder, told from their small files; no model is opened, torch not imported."""

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

USED = Path(".clearstory") / "used"
"""Files of the studio's folder whose times tell when a model was last used."""

MAX_DEPTH = 4
"""How far down folders are looked into."""

MAX_FOLDERS = 3000
"""How many folders are looked into: a studio over a whole disk must answer too."""

SKIPPED_FOLDERS = frozenset({"checkpoints", "tokenizer", "node_modules", "site-packages", "__pycache__", "venv"})
FILES = (".gguf", ".arpa", ".arpa.gz")
STEP = re.compile(r"step-(\d{6,})")
HEADER = 64 * 2**20
"""A safetensors header is never longer than this."""

RECORD_TAIL_BYTES = 2**16
"""Bytes of a record's end in which its last step is looked for."""


@dataclass(frozen=True, kw_only=True)
class IndexedModel:
    """A model or run by its path under the studio's folder.

    Args:
        name: the path; "." for the folder itself.
        kind: run, folder, adapter or file.
        family: its kind of model in a word, where a file says so.
        parameters: how many numbers it has learnt; None where that is not told without opening it.
        bits_per_byte: on held-out text, where it was measured.
        loss: of the last step of its training, in nats per token; None for what is no run.
        trained_on: names of the texts.
        written: when its model was last written, in seconds since 1970.
        used: when a studio last asked it anything, or it was written.
        size: bytes of its weights.
        steps: the steps whose checkpoints are there.
        note: what keeps it from being opened, in a sentence.
    """

    name: str
    kind: Literal["run", "folder", "adapter", "file"]
    family: str | None = None
    parameters: int | None = None
    bits_per_byte: float | None = None
    loss: float | None = None
    trained_on: tuple[str, ...] = ()
    written: float = 0.0
    used: float = 0.0
    size: int = 0
    steps: tuple[int, ...] = ()
    note: str | None = None


def found(root: Path) -> tuple[list[IndexedModel], bool]:
    """What lies under a folder, last used first, and whether all of it was looked at. Raises BadInput for no folder.

    A link to a model's folder or to a run is one; what is in other folders that are linked is not looked for, since
    links may go round.
    """
    if not root.is_dir():
        raise BadInput(f"the studio's folder {root} is not there any more; start the studio with one that is")
    models: list[IndexedModel] = []
    seen = 0
    waiting = [(root, 0)]
    while waiting and seen < MAX_FOLDERS:
        folder, depth = waiting.pop(0)
        seen += 1
        own = index_folder(root, folder)
        if own is not None:
            models.append(own)
            if folder != root:
                continue
        for each in children(folder):
            if each.is_dir() and each.is_symlink():
                linked = index_folder(root, each)
                models += [] if linked is None else [linked]
            elif each.is_dir():
                if depth < MAX_DEPTH and each.name not in SKIPPED_FOLDERS and not (own and each.name == "model"):
                    waiting.append((each, depth + 1))
            elif each.name.endswith(FILES):
                models.append(index_file(root, each))
    models = [replace(each, used=max(each.written, modified(marker(root, each.name)))) for each in models]
    return sorted(models, key=lambda each: -each.used), not waiting


def children(folder: Path) -> Iterator[Path]:
    """What is in a folder, hidden things left out."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    yield from (each for each in inside if not each.name.startswith("."))


def find_model(root: Path, name: str) -> IndexedModel:
    """The model or run at a path, however deep it lies. Raises BadInput for a path that leads to none, with the way
    out.
    """
    if PurePosixPath(name).is_absolute() or name.startswith("~"):
        raise BadInput(
            f"{name} is not named from the studio's folder; link it there once, and it is found: "
            f"ln -s {quote(name)} {quote(str(root / PurePosixPath(name).name))}"
        )
    path = resolve_name(root, name)
    if path.is_file() and path.name.endswith(FILES):
        return index_file(root, path)
    one = index_folder(root, path) if path.is_dir() else None
    if one is None:
        what = "holds no model and no run" if path.is_dir() else "is not there" if not path.exists() else "is no model"
        raise BadInput(
            f"'{name}' {what}: a model is a folder with config.json and .safetensors, a .gguf or an .arpa file; link "
            f"one that lies elsewhere by: ln -s ITS-PATH {quote(str(root))}"
        )
    return one


def marker(root: Path, name: str) -> Path:
    """The file whose time tells when a model was used; a checkpoint is used as its run."""
    return root / USED / f"{name.partition('/checkpoints/')[0].replace('/', '.')}.used"


def mark_used(root: Path, name: str) -> None:
    """Remember that a model is used now, where the folder may be written to."""
    file = marker(root, name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError:
        return


def resolve_name(root: Path, name: str) -> Path:
    """The path that a name means. Raises BadInput for one that leaves the studio's folder."""
    given = PurePosixPath(name)
    if not name or given.is_absolute() or ".." in given.parts or "\0" in name or "\\" in name:
        raise BadInput(f"'{name}' is no path inside the studio's folder; choose a model from its list")
    return root / given


def relative_name(root: Path, path: Path) -> str:
    """A path as the studio calls it."""
    return path.relative_to(root).as_posix()


def index_folder(root: Path, folder: Path) -> IndexedModel | None:
    """A folder as a run or a model; None where it is neither."""
    if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
        model = current_path(folder / "model")
        steps = tuple(step for step, _ in list_checkpoints(folder))
        if not (model / "config.json").is_file() and not (model / "adapter_config.json").is_file():
            known: dict[str, Any] = {"written": modified(folder / "config.yaml"), "note": "has no model yet"}
        else:
            known = read_model_facts(model)
        return IndexedModel(name=relative_name(root, folder), kind="run", steps=steps, loss=last_loss(folder), **known)
    if (folder / "adapter_config.json").is_file():
        return IndexedModel(name=relative_name(root, folder), kind="adapter", **read_model_facts(folder))
    if (folder / "config.json").is_file() and is_model_config(read_json_object(folder / "config.json")):
        return IndexedModel(name=relative_name(root, folder), kind="folder", **read_model_facts(folder))
    return None


def is_model_config(config: dict[str, Any]) -> bool:
    """Whether a config.json is a model's: other programs have files of this name as well."""
    return any(key in config for key in ("model_type", "architectures", "clearstory"))


def read_model_facts(model: Path) -> dict[str, Any]:
    """What a model folder's small files say."""
    config = read_json_object(model / "config.json")
    own = config.get("clearstory")
    said = own.get("card") if isinstance(own, dict) else None
    card: dict[str, Any] = said if isinstance(said, dict) else {}
    weights = sorted(model.glob("*.safetensors"))
    counted = card.get("parameters") or sum(map(numbers, weights)) or None
    family = card.get("family") or config.get("model_type")
    bits = card.get("bits_per_byte")
    texts = card.get("trained_on")
    return {
        "family": family if isinstance(family, str) else None,
        "parameters": counted if isinstance(counted, int) else None,
        "bits_per_byte": bits if isinstance(bits, float) else None,
        "trained_on": tuple(str(text[0]) for text in texts if text) if isinstance(texts, list) else (),
        "written": max(map(modified, [model / "config.json", *weights])),
        "size": sum(size_of(each) for each in weights),
        "note": None if weights else "has no weights (a .safetensors file)",
    }


def index_file(root: Path, file: Path) -> IndexedModel:
    """A file that is a model by itself."""
    family = "ngram" if ".arpa" in file.name else None
    return IndexedModel(name=relative_name(root, file), kind="file", family=family, written=modified(file), size=size_of(file))


def last_loss(run: Path) -> float | None:
    """The loss of a run's last step, from the end of its record."""
    try:
        with (run / "metrics.jsonl").open("rb") as opened:
            opened.seek(max(0, opened.seek(0, 2) - RECORD_TAIL_BYTES))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the first may be cut, the last half written
        if isinstance(said, dict) and said.get("kind") == "step" and isinstance(loss := said.get("loss"), float):
            return loss if math.isfinite(loss) else None
    return None


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run with their steps, oldest first."""
    try:
        inside = list((run / "checkpoints").iterdir())
    except OSError:
        return []
    return sorted((int(match[1]), path) for path in inside if (match := STEP.fullmatch(path.name)))


def numbers(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header; 0 where it cannot be told."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length)) if length <= HEADER else {}
        return sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    except (OSError, ValueError, struct.error, TypeError, KeyError, AttributeError):
        return 0


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none that can be read."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def modified(path: Path) -> float:
    """When a file was last written; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def size_of(path: Path) -> int:
    """A file's bytes; 0 where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
