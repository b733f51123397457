"""Data files: the files of sources, their part of the data set, and their features as declared by `datasets`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput
from clearstory.text.files import content_suffix
from clearstory.text.settings import ReadSettings
from clearstory.text.sources import expand_sources, is_builtin

RECORD_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
TREE_FILES = (".trees", ".ptb")
WORD_FILES = (".conll", ".conllu", ".conllup", ".iob", ".iob2", ".bio", ".bioes", ".ner", ".conll2003")

DATASET_INFO = "dataset_info.json"
STATE = "state.json"
NOT_DATA = frozenset([DATASET_INFO, STATE, "dataset_dict.json", "dataset_infos.json", "config.json", "package.json"])

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    "unsupervised": "unsupervised",
}
"""The words that name a part of a data set."""


@dataclass(frozen=True)
class DataFile:
    """A file, the part of the data set by its name ("" if none), and the features that `datasets` declares."""

    path: Path
    part: str = ""
    features: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFolder:
    """A folder whose name is the label of each text file in it."""

    label: str
    part: str
    files: tuple[Path, ...]


def find_data_files(
    sources: Iterable[str | Path] | str | Path, settings: ReadSettings, suffixes: tuple[str, ...]
) -> list[DataFile]:
    """The files of all sources. Files of a folder or a glob are selected by suffix and assigned to a part of the data
    set by name; the names of files that were given one by one are not interpreted.

    Raises BadInput for a source that does not exist, and for a folder with several data sets.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources:
        raise BadInput("no data given; give a file or a folder of labeled examples")
    found: list[DataFile] = []
    for each in expand_sources(sources, ReadSettings(include=("all",), encoding=settings.encoding)):
        if is_builtin(each.source) or each.files is None:
            raise BadInput(f"{each.source} has no labels; give a file or a folder of labeled examples")
        if each.named:
            found += [DataFile(path, features=read_features(path.parent)) for path in each.files]
        else:
            root = expand_home(each.source)
            root = root if root.is_dir() else root.parent
            found += _files_of_folder(str(each.source), root, each.files, suffixes)
    return found


def read_features(folder: Path) -> dict[str, Any]:
    """The features in the dataset_info.json of a folder; {} if there are none."""
    info = read_json_object(folder / DATASET_INFO)
    features = info.get("features")
    return features if isinstance(features, dict) else {}


def read_json_object(path: Path) -> dict[str, Any]:
    """The object of a small JSON file; {} where it is missing or is not one."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return contents if isinstance(contents, dict) else {}


def find_label_folders(folder: Path) -> list[LabelFolder]:
    """The folders whose names are labels: FOLDER/LABEL/*.txt or FOLDER/train/LABEL/*.txt; [] for another layout."""
    below = [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    parts = [each for each in below if each.name.lower() in PARTS]
    if parts:
        return [
            LabelFolder(label.label, PARTS[part.name.lower()], label.files)
            for part in parts
            for label in find_label_folders(part)
        ]
    found = [
        LabelFolder(each.name, "", tuple(file for file in sorted(each.iterdir()) if content_suffix(file) == ".txt"))
        for each in below
    ]
    return found if len(found) > 1 and all(label.files for label in found) else []


def part_of(name: str) -> str:
    """The part of a data set by its name, "" if none.

    >>> part_of("sst2-dev.tsv.gz"), part_of("train-00000-of-00002.parquet"), part_of("a.conll")
    ('validation', 'train', '')
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((PARTS[word] for word in words if word in PARTS), "")


def _files_of_folder(source: str, root: Path, files: Iterable[Path], suffixes: tuple[str, ...]) -> list[DataFile]:
    """Files of a folder, each with its part. Raises BadInput for several data sets, and for none."""
    files = list(files)
    kept = [path for path in files if content_suffix(path) in suffixes and path.name not in NOT_DATA]
    if any(content_suffix(path) != ".json" for path in kept):
        kept = [path for path in kept if content_suffix(path) != ".json"]  # settings of other programs
    for state in {path.parent / STATE for path in kept}:
        listed = read_json_object(state).get("_data_files")
        if isinstance(listed, list):  # other .arrow files there are caches of transformations
            names = {entry.get("filename") for entry in listed if isinstance(entry, dict)}
            kept = [path for path in kept if path.parent != state.parent or path.name in names]
    if not kept and any(content_suffix(path) in WORD_FILES for path in files):
        raise BadInput(f"{source} has words with tags, not texts with labels; use --task tag")
    if not kept:
        kinds = ", ".join(sorted({content_suffix(path) or "no suffix" for path in files})[:8])
        raise BadInput(
            f"{source} has no labeled data: its files have {kinds}; supported: {' '.join(suffixes)}, and a folder of "
            ".txt files for each label"
        )
    found = []
    sets: dict[str, set[str]] = defaultdict(set)
    for path in kept:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        part = part_of(name)
        found.append(DataFile(path, part, read_features(path.parent) or read_features(root)))
        sets[_name_of_set(name)].add(path.name)
    if any(file.part for file in found) and len(sets) > 1:
        examples = ", ".join(sorted(min(names) for names in sets.values())[:4])
        raise BadInput(f"{source} has {len(sets)} data sets ({examples} …); name the files of one of them")
    return found


def _name_of_set(name: str) -> str:
    """A file's name without its part and the numbers of its pieces."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower().removesuffix(".gz")) if word not in PARTS]
    return " ".join(word for word in words if word not in ("of", "data", "default") and not word.isdigit())
