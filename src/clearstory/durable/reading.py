"""Reading untrusted files: regular files only, of bounded size; JSON of bounded depth, size and numbers."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from clearstory.durable.disk_errors import translate_disk_errors
from clearstory.errors import BadInput, ClearstoryError, CorruptFile

KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_regular_file(path: Path) -> bool:
    """Whether a path is a regular file; also False for a path that cannot be examined."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading. Never waits for a pipe or opens a device for long.

    Raises BadInput for another kind of file, DiskError.
    """
    with translate_disk_errors(path, action="reading"):
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(handle).st_mode
        kind = kind_of_mode(mode)
        if kind is not None:
            os.close(handle)
            raise BadInput(f"{path} is {kind}, but a file is needed; give another path")
        return open(handle, "rb")


def kind_of_mode(mode: int) -> str | None:
    """Kind of a path with this mode, such as "a named pipe"; None for a regular file."""
    return next((name for test, name in KINDS if test(mode)), None)


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """The contents of a regular file. Never waits for a pipe or reads a device without end.

    Raises BadInput for another kind of file, CorruptFile for one of more than `max_bytes`, DiskError.
    """
    with open_file(path) as file, translate_disk_errors(path, action="reading"):
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise CorruptFile(f"{path} has {size:,} bytes, more than the maximum of {max_bytes:,}; copy it again")
        # A file can grow, and those of /proc have no size.
        return file.read() if max_bytes is None else file.read(max_bytes)


def parse_json(data: bytes | str, path: Path | str, *, error: type[ClearstoryError] = CorruptFile) -> Any:
    """The JSON value in the contents of an untrusted file.

    Raises `error` for invalid JSON, values nested too deeply, numbers of thousands of digits, NaN, infinities, and text
    with half of a surrogate pair, which no file can be written with.
    """
    try:
        value = json.loads(data, parse_constant=_reject_constant)
        escaped = b"\\ud" in data.lower() if isinstance(data, bytes) else "\\ud" in data.lower()
        if escaped:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is not valid JSON ({' '.join(str(reason).split())[:200]}); copy it again") from None
    return value


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
