"""Disk operations of the writers: flush, lock, remove, and free space."""

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
"""Called with a label and a path before each disk operation; tests make writing fail or stop there."""

DISK_FULL = re.compile(r"No space left on device|os error 28\b|unexpected pos \d+ vs \d+|Disk quota exceeded")
"""Messages of a full disk: the system, safetensors, torch's zip writer, the system again."""

UMASK = os.umask(0o022)
os.umask(UMASK)  # the only way to read it is to set it


def call_hooks(label: str, path: Path) -> None:
    """Call every hook before a disk operation."""
    for hook in hooks:
        hook(label, path)


def absolute_path(path: Path | str) -> Path:
    """The absolute path, so that it has a name and a parent; links are kept."""
    return Path(os.path.abspath(path))


def check_space(folder: Path | str, need: int) -> None:
    """Raise OutOfSpace when `need` bytes exceed the free space of the disk of `folder`."""
    free = _free_bytes(absolute_path(folder))
    if need > free:
        raise OutOfSpace(_message(absolute_path(folder), f"{need:,} bytes", free))


@contextmanager
def disk_full_error(path: Path | str) -> Iterator[None]:
    """A block that appends to a file: a full disk raises OutOfSpace."""
    with translate_disk_full(absolute_path(path), absolute_path(path), None):
        yield


@contextmanager
def translate_disk_full(path: Path, temporary: Path, need: int | None) -> Iterator[None]:
    """A block in which errors of a full disk, from whichever library, are raised as OutOfSpace."""
    try:
        yield
    except BaseException as error:  # torch's CheckpointException is no Exception
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, OutOfSpace) or not (full or DISK_FULL.search(str(error))):
            raise
        files = [temporary, *temporary.rglob("*")] if temporary.exists() else []
        written = sum(file.stat().st_size for file in files if file.is_file())
        needed = f"more than {written:,} bytes" if need is None else f"{need:,} bytes"
        raise OutOfSpace(_message(path, needed, _free_bytes(path))) from error


def _message(path: Path, needed: str, free: int) -> str:
    return f"writing {path} needs {needed} and its disk has {free:,} bytes free; make room or choose another folder"


def _free_bytes(path: Path) -> int:
    """Free bytes of the disk where `path` is or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


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
    """A block that holds the lock of a temporary file; yields False where another process holds it.

    The system releases the lock when the process dies, however it dies. Some network disks do not lock folders; there
    `remove_stale` must not run beside a writer.
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
