"""Bounded files: the small files of a folder that others write, read without waiting and without filling memory.

A folder of models may hold anything: pipes, devices, links in a circle, files that may not be read, JSON nested
thousands deep. Only regular files are opened, and no more than a limit is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearstory.durable import kind_of_mode, open_file, parse_json, read_file
from clearstory.errors import BadInput, ClearstoryError, CorruptFile
from clearstory.http.display_text import one_line

MAX_JSON_BYTES = 4 * 2**20
"""The largest JSON file or safetensors header that is read."""

MAX_ENTRIES = 20_000
"""Entries of one folder that are listed at most."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput, CorruptFile or DiskError for anything else."""
    value = parse_json(read_file(path, MAX_JSON_BYTES), path)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} is JSON but not an object; copy it again")
    return value


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it cannot be read."""
    try:
        return read_json(path)
    except ClearstoryError:
        return {}


def read_tail(path: Path, limit: int) -> bytes:
    """The last bytes of a regular file; empty if it cannot be read."""
    try:
        with open_file(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit)
    except (ClearstoryError, OSError):
        return b""


def list_entries(folder: Path) -> list[Path]:
    """The entries of a folder without hidden ones, sorted, at most MAX_ENTRIES; none if it cannot be read."""
    paths: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    paths.append(folder / entry.name)
                if len(paths) == MAX_ENTRIES:
                    break
    except (OSError, ValueError):
        return []
    return sorted(paths)


def kind_of_path(path: Path) -> str | None:
    """What a path is, such as "a folder" or "a named pipe"; None for a regular file and for a missing one."""
    try:
        return kind_of_mode(path.stat().st_mode)
    except (OSError, ValueError):
        return None


def irregular_files(folder: Path, depth: int = 2) -> Iterator[tuple[Path, str]]:
    """The entries of a folder and of its subfolders that are pipes, devices or sockets, each with what it is."""
    for path in list_entries(folder):
        kind = kind_of_path(path)
        if kind == "a folder" and depth > 1:
            yield from irregular_files(path, depth - 1)
        elif kind is not None and kind != "a folder":
            yield path, kind


def refuse_irregular_files(path: Path) -> None:
    """Raises BadInput if opening a model would read from a pipe, a device or a socket, which may never end."""
    kind = kind_of_path(path)
    found = irregular_files(path) if kind == "a folder" else iter([] if kind is None else [(path, kind)])
    for each, name in found:
        raise BadInput(f"{each} is {name}, and reading it might never end; remove it, or replace it by a file")


def text_or_none(value: Any, limit: int = 200) -> str | None:
    """A value of a foreign JSON file as a short text on one line; None unless it is a non-empty text or a number."""
    if isinstance(value, str):
        return one_line(value, limit) or None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return str(value)
    return None


def whole_number(value: Any, most: int = 2**53 - 1) -> int | None:
    """A value of a foreign JSON file as an integer from 0 to `most`; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def nested_value(value: Any, *keys: str) -> Any:
    """The value under nested keys of a foreign JSON object; None where one of them is missing or no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
