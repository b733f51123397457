"""Model facts: what the small files of a model or run say about it, without opening the model or importing torch.

Every file may come from anywhere: a value of the wrong kind is left out, and a file that cannot be read is the model's
`problem`.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from clearstory.durable import open_file, parse_json
from clearstory.errors import BadInput, ClearstoryError, CorruptFile
from clearstory.studio.bounded_files import (
    MAX_JSON_BYTES,
    kind_of_path,
    list_entries,
    nested_value,
    read_json,
    read_tail,
    text_or_none,
    whole_number,
)

CHECKPOINT_NAME = re.compile(r"(?:step|weights)-([0-9]{6,15})")

RECORD_TAIL_BYTES = 2**16
"""Bytes at the end of metrics.jsonl in which the last step is searched."""

MAX_WEIGHT_FILES = 1000
"""Weight files of one model whose headers are read; with more, its parameters are not counted."""

MAX_TEXTS = 20
"""Names of training texts that are shown."""


def read_model_facts(model: Path) -> dict[str, Any]:
    """The fields of IndexedModel that config.json and the safetensors headers give."""
    problem = None
    config: dict[str, Any] = {}
    name = "config.json" if os.path.lexists(model / "config.json") else "adapter_config.json"
    try:
        config = read_json(model / name)
    except ClearstoryError as error:
        problem = f"cannot be read: {error}"
    weights = [each for each in list_entries(model) if each.name.endswith(".safetensors")]
    card = nested_value(config, "clearstory", "card")
    parameters = whole_number(nested_value(card, "parameters"))
    if problem is None and len(weights) <= MAX_WEIGHT_FILES:
        try:
            # The model card's number saves reading the headers, not finding that a file is a pipe.
            counts = [count_parameters(each, read=not parameters) for each in weights]
            parameters = parameters or sum(counts)
        except ClearstoryError as error:
            problem = f"cannot be read: {error}"
    if not weights and problem is None:
        problem = "has no weights (a .safetensors file)"
    texts = nested_value(card, "trained_on")
    return {
        "family": text_or_none(nested_value(card, "family") or config.get("model_type")),
        "parameters": parameters or None,
        "bits_per_byte": positive_number(nested_value(card, "bits_per_byte")),
        "trained_on": text_names(texts) if isinstance(texts, list) else (),
        "modified": max(map(modification_time, [model / name, *weights])),
        "size_bytes": sum(file_size(each) for each in weights),
        "problem": problem,
    }


def text_names(texts: list[Any]) -> tuple[str, ...]:
    """The names in a model card's list of (name, tokens) pairs of training texts."""
    names = (text_or_none(each[0] if isinstance(each, list) and each else each) for each in texts[:MAX_TEXTS])
    return tuple(name for name in names if name is not None)


def positive_number(value: Any) -> float | None:
    """A value of a foreign JSON file as a finite number of at least 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e300 else None


def count_parameters(file: Path, read: bool = True) -> int:
    """The number of elements in a safetensors file, from its header; 0 without reading it.

    Raises BadInput, CorruptFile or DiskError for a file that holds no such header.
    """
    if (kind := kind_of_path(file)) is not None:
        raise BadInput(f"{file} is {kind}, and a file is needed; replace it")
    return count_elements(file, modification_time(file), file_size(file)) if read else 0


@lru_cache(maxsize=4096)
def count_elements(file: Path, modified: float, size: int) -> int:
    """The sum of elements over the tensors of a safetensors header; cached until the file changes."""
    with open_file(file) as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_JSON_BYTES):
            raise CorruptFile(f"{file} is no safetensors file, or a damaged one; copy it again")
        header = parse_json(opened.read(length), file)
    total = 0
    for name, entry in header.items() if isinstance(header, dict) else [("", None)]:
        if name == "__metadata__":
            continue
        shape = nested_value(entry, "shape")
        sizes = [whole_number(each) for each in shape] if isinstance(shape, list) and len(shape) <= 16 else [None]
        count = 0 if None in sizes else math.prod(each for each in sizes if each is not None)
        # No number takes less than a bit: a header that promises more is not that of this file.
        if None in sizes or count > 8 * size:
            raise CorruptFile(f"{file} has a damaged header; copy it again")
        total += count
    return total


def last_train_loss(run: Path) -> float | None:
    """The training loss of a run's last step, from the end of its metrics.jsonl; None if there is none."""
    for line in reversed(read_tail(run / "metrics.jsonl", RECORD_TAIL_BYTES).splitlines()):
        record = parse_record(line)  # the first line may be cut off, the last one incomplete
        if record.get("kind") == "step" and isinstance(loss := record.get("loss"), float):
            return loss if math.isfinite(loss) else None
    return None


def parse_record(line: bytes) -> dict[str, Any]:
    """A line of JSON as an object; an empty one if it is not an object."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The steps of a run that open as models as (step, path), oldest first: one path where there are two."""
    inside = list_entries(run / "checkpoints")
    found = {int(match[1]): path for path in inside if (match := CHECKPOINT_NAME.fullmatch(path.name))}
    return sorted(found.items())


def modification_time(path: Path) -> float:
    """When a file was last modified, in seconds since 1970; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def file_size(path: Path) -> int:
    """A file's size in bytes; 0 if it is gone."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
