"""Output folder: checks whether a model may be written into a folder or replace it."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from clearstory.errors import FolderExists

MODEL_FILES = (
    "*config*.json", "*.index.json", "*tokens*.json", "tokenizer.json", "vocab.json", "modules.json", "checksums.json",
    "clearstory.json", "merges.txt", "vocab.txt", "*.safetensors", "*.bin", "*.onnx", "*.onnx.data", "*.jinja",
    "*.model", "*.spm", "README.md", ".*",
)  # fmt: skip
"""Names of the files of a model folder."""


def check_writable(folder: Path, overwrite: bool) -> None:
    """Raise FolderExists for a path in use, unless `overwrite` and it is a model folder. An empty folder is free.

    A folder with anything else in it is never replaced: with `--overwrite` and a wrong name, such as `.`, work would be
    lost.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise FolderExists(f"{folder} exists already; choose another name, or pass --overwrite to replace it")
    if not folder.is_dir():
        return
    names = sorted(each.name for each in folder.iterdir())
    other = next((name for name in names if not belongs_to_model(folder / name)), None)
    if other is not None or not {"config.json", "adapter_config.json"} & set(names):
        what = "holds no model" if other is None else f"holds {other}"
        raise FolderExists(f"{folder} {what}, so it is not replaced; choose another name, or delete it first")


def belongs_to_model(path: Path) -> bool:
    """Whether a file or folder is part of a model folder; so are the modules of sentence-transformers, `1_Pooling`."""
    if not path.is_dir():
        return is_model_file(path.name)
    is_module = re.fullmatch(r"\d+_[A-Za-z]+", path.name) is not None and (path.parent / "modules.json").is_file()
    return is_module and all(each.is_file() and is_model_file(each.name) for each in path.iterdir())


def is_model_file(name: str) -> bool:
    """Whether a file of this name belongs to a model folder."""
    return any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)
