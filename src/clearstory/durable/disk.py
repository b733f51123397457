"""Disk operations of the writers: flush, lock and remove."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clearstory.durable.disk_errors import free_bytes, full_disk_sentence, translate_disk_errors
from clearstory.errors import OutOfSpace

try:
    import fcntl
except ImportError:  # Windows has no flock; there an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]  # the way to say "not there"

hooks: list[Callable[[str, Path], None]] = []
"""Called with a label and a path before each disk operation; tests make writing fail or stop there."""

FOLDER_ATTEMPTS = 100
"""Attempts at a folder that others remove meanwhile; what cannot be made at all fails as often, within 10 ms."""

UMASK = os.umask(0o022)
os.umask(UMASK)  # the only way to read it is to set it


def call_hooks(label: str, path: Path) -> None:
    """Call every hook before a disk operation."""
    for hook in hooks:
        hook(label, path)


def absolute_path(path: Path | str) -> Path:
    """The absolute path, so that it has a name and a parent; links are kept."""
    return Path(os.path.abspath(path))


def make_missing_folders(path: Path) -> None:
    """Make a folder and its parents where they are missing, also while other processes remove empty ones.

    `Path.mkdir` alone fails with FileExistsError where a folder vanishes between its attempt and its check.
    """
    for attempt in range(FOLDER_ATTEMPTS):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except (FileExistsError, FileNotFoundError):
            if attempt == FOLDER_ATTEMPTS - 1:
                raise


def check_space(folder: Path | str, need: int) -> None:
    """Raise OutOfSpace when `need` bytes exceed the free space of the disk of `folder`."""
    free = free_bytes(absolute_path(folder))
    if free is not None and need > free:
        raise OutOfSpace(full_disk_sentence(absolute_path(folder), need, free=free))


@contextmanager
def appending(path: Path | str) -> Iterator[None]:
    """A block that appends to a file; errors of the system are raised as DiskError, a full disk as OutOfSpace."""
    path = absolute_path(path)
    with translate_disk_errors(path):
        call_hooks("append", path)
        yield


def flush(path: Path) -> None:
    """Write a file's contents through to the disk (fsync), with the permissions of the user's umask."""
    call_hooks("flush", path)
    # Read and write: Windows refuses to flush what was opened for reading.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    # safetensors makes files for their owner alone.
    path.chmod(0o666 & ~UMASK)


def flush_folder(folder: Path) -> None:
    """Write the names in a folder through to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    call_hooks("flush folder", folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Write a folder and everything in it through to the disk."""
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            flush(Path(here, name))
        flush_folder(Path(here))


def remove(path: Path) -> None:
    """Remove a temporary file or folder; what cannot be removed now is left to the next `remove_stale`."""
    call_hooks("remove", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Context manager that holds the lock of a temporary file; yields False if another process holds it.

    The system releases the lock when the process ends for any reason. Some network disks do not lock folders; there
    `remove_stale` must not run at the same time as a writer.
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
