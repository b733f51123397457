"""Disk: what writers ask of the system: to flush, to hold, to take away, and how much room there is."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clearstory.errors import OutOfSpace

try:
    import fcntl
except ImportError:  # Windows has no flock; there an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]  # the way to say "not there"

hooks: list[Callable[[str, Path], None]] = []
"""Called with a label and a path before each step that touches the disk: where tests make writing fail or stop."""

FULL = re.compile(r"No space left on device|os error 28\b|unexpected pos \d+ vs \d+|Disk quota exceeded")
"""How writers say that a disk is full: the system, safetensors, torch's zip writer, the system again."""

MASK = os.umask(0o022)
os.umask(MASK)  # the only way to ask for it is to set it


def call_hooks(label: str, path: Path) -> None:
    """Tell whoever listens what is about to be done."""
    for listener in hooks:
        listener(label, path)


def absolute_path(path: Path | str) -> Path:
    """The path from the root, so that it has a name and a folder; links are kept."""
    return Path(os.path.abspath(path))


def check_space(folder: Path | str, need: int) -> None:
    """Refuse to begin what cannot end. Raises OutOfSpace when `need` bytes exceed what is free where `folder` lies."""
    free = _free(absolute_path(folder))
    if need > free:
        raise OutOfSpace(_says(absolute_path(folder), f"{need:,} bytes", free))


@contextmanager
def disk_full_error(path: Path | str) -> Iterator[None]:
    """A block that adds to a file: raises OutOfSpace, whoever says that the disk is full."""
    with translate_disk_full(absolute_path(path), absolute_path(path), None):
        yield


@contextmanager
def translate_disk_full(path: Path, temporary: Path, need: int | None) -> Iterator[None]:
    """A disk that fills while we write, said in one way whoever was writing."""
    try:
        yield
    except BaseException as error:  # torch's CheckpointException is no Exception
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, OutOfSpace) or not (full or FULL.search(str(error))):
            raise
        files = [temporary, *temporary.rglob("*")] if temporary.exists() else []
        written = sum(file.stat().st_size for file in files if file.is_file())
        wanted = f"more than {written:,} bytes" if need is None else f"{need:,} bytes"
        raise OutOfSpace(_says(path, wanted, _free(path))) from error


def _says(path: Path, wanted: str, free: int) -> str:
    return f"writing {path} needs {wanted} and its disk has {free:,} bytes free; make room or choose another folder"


def _free(path: Path) -> int:
    """Bytes free on the disk where `path` is or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def flush(path: Path) -> None:
    """What a file holds is on the disk when this returns."""
    call_hooks("flush", path)
    # Read and write: Windows refuses to flush what was opened for reading.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    # safetensors makes files for their owner alone; what lies beside them is readable as the user's mask says.
    path.chmod(0o666 & ~MASK)


def flush_folder(folder: Path) -> None:
    """The names in a folder are on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    call_hooks("flush folder", folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """A folder and all that is in it."""
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            flush(Path(here, name))
        flush_folder(Path(here))


def remove(path: Path) -> None:
    """Take away a temporary, whatever it is; what cannot be removed now is left to the next sweep."""
    call_hooks("remove", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """A lock on a temporary while it is written, or False where another has it.

    The system drops it when the process dies, however it dies. Some network disks lock no folders;
    there a sweep must not meet a writer.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        free = not isinstance(error, BlockingIOError)
    else:
        free = True
    try:
        yield free
    finally:
        os.close(handle)
