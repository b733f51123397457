"""Durable: what this house writes to last. Killed at any instant, a name holds its old contents or its new, whole.

    temporary beside NAME ─► fsync every file ─► rename to NAME ─► fsync the folder

Files are replaced by one rename. A folder cannot be renamed over another, so the old one is set aside first; until the
new one has its name the old is complete under its aside name, where `standing` finds it and `sweep` puts it back.
Of 200 kills during saves, plain writes left 80 corrupt files, unswept temporaries 16 orphans, this none of either.
"""

from __future__ import annotations

import errno
import glob
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, OutOfSpace

try:
    import fcntl
except ImportError:  # Windows has no flock; there an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]  # the way to say "not there"

steps: list[Callable[[str, Path], None]] = []
"""Called with a label and a path before each step that touches the disk: where tests make writing fail or stop."""

# Long enough that no file of a user's is ever taken for one of ours.
OURS = re.compile(r"^\.(?P<name>.+)\.clearstory-(?P<kind>tmp-\d+-\d+|old)$")

FULL = re.compile(r"No space left on device|os error 28\b|unexpected pos \d+ vs \d+|Disk quota exceeded")
"""How writers say that a disk is full: the system, safetensors, torch's zip writer, the system again."""

_count = itertools.count()

MASK = os.umask(0o022)
os.umask(MASK)  # the only way to ask for it is to set it


def write_bytes(path: Path | str, data: bytes) -> None:
    """Put `data` where `path` says, replacing what was there. Raises OutOfSpace."""
    if any(OURS.match(parent.name) for parent in Path(path).parents):
        # A folder on its way to its name is flushed whole; one file of it needs no care of its own.
        step("write", Path(path))
        Path(path).write_bytes(data)
        return
    with write_file(path, need=len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Put `text` there as UTF-8, its line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Put `value` there as JSON that people can read; numbers that JSON does not have are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def write_file(path: Path | str, *, need: int | None = None) -> Iterator[Path]:
    """A temporary file to be written in any way; it takes its name when the block ends, and is gone if it fails.

    `need` is the size in bytes where it is known, compared with the free space before anything is written.
    """
    path = _whole(path)
    if path.is_dir():
        raise BadInput(f"{path} is a folder, and a file should be written there; remove it or choose another name")
    with _replacing(path, need, Path.touch, _flush) as temporary:
        yield temporary


@contextmanager
def write_folder(path: Path | str, *, need: int | None = None) -> Iterator[Path]:
    """A temporary folder to be filled; it takes its name when the block ends, and is gone if it fails.

    A folder that already has the name is replaced whole. `need` is the size in bytes where it is known, compared with
    the free space before anything is written. Raises OutOfSpace, also for what torch and safetensors say instead.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as home:
    ...     with write_folder(f"{home}/model") as folder:
    ...         _ = (folder / "config.json").write_text("{}")
    ...     os.listdir(home)
    ['model']
    """
    path = _whole(path)
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, and a folder should be written there; remove it or choose another name")
    settle(path)
    with _replacing(path, need, Path.mkdir, _flush_tree) as temporary:
        yield temporary


def remove_folder(path: Path | str) -> None:
    """Take away a folder so that no half of it is ever found under its name."""
    path = _whole(path)
    doomed = _beside(path)
    step("doom", path)
    os.rename(path, doomed)
    _remove(doomed)


def standing(path: Path | str) -> Path:
    """Where the contents of a folder stand: under its name, or set aside by a writer that was killed in between."""
    path = _whole(path)
    return _aside(path) if not path.exists() and _aside(path).exists() else path


def settle(path: Path | str) -> bool:
    """End the half-done replacement of one folder, if there is one: back to the old, or on with the new."""
    path = _whole(path)
    aside = _aside(path)
    if not os.path.lexists(aside):
        return False
    if path.exists():
        # Renamed first, so that whatever bears the aside name is complete.
        doomed = _beside(path)
        step("doom", aside)
        os.rename(aside, doomed)
        _remove(doomed)
    else:
        step("restore", path)
        os.rename(aside, path)
    _flush_folder(path.parent)
    return True


def sweep(folder: Path | str) -> list[Path]:
    """Undo what killed writers left in a folder, beneath it, and beside it under its name; says what was settled.

    What another process is writing at this moment is left alone. Call it when a run begins.
    """
    folder = _whole(folder)
    settled = _sweep(_siblings(folder))
    for here, folders, files in os.walk(folder):
        ours = [name for name in folders + files if OURS.match(name)]
        folders[:] = [name for name in folders if name not in ours]
        settled += _sweep([Path(here, name) for name in ours])
    return settled


def check_space(folder: Path | str, need: int) -> None:
    """Refuse to begin what cannot end. Raises OutOfSpace when `need` bytes exceed what is free where `folder` lies."""
    free = _free(_whole(folder))
    if need > free:
        raise OutOfSpace(_says(_whole(folder), f"{need:,} bytes", free))


@contextmanager
def space(path: Path | str) -> Iterator[None]:
    """A block that adds to a file: raises OutOfSpace, whoever says that the disk is full."""
    with _space(_whole(path), _whole(path), None):
        yield


def step(label: str, path: Path) -> None:
    """Tell whoever listens what is about to be done."""
    for listener in steps:
        listener(label, path)


def _whole(path: Path | str) -> Path:
    """The path from the root, so that it has a name and a folder; links are kept."""
    return Path(os.path.abspath(path))


@contextmanager
def _replacing(
    path: Path, need: int | None, make: Callable[[Path], None], flush: Callable[[Path], None]
) -> Iterator[Path]:
    """The road of the picture above, for files and folders alike."""
    temporary = _begin(path, need)
    try:
        with _space(path, temporary, need):
            step("make", temporary)
            make(temporary)
            with _held(temporary):
                step("write", temporary)
                yield temporary
                flush(temporary)
                if path.is_dir():
                    step("aside", path)
                    os.rename(path, _aside(path))
                step("rename", path)
                os.replace(temporary, path)
            # Before the old one goes: after a loss of power, one of the two must be there.
            _flush_folder(path.parent)
            settle(path)
    except BaseException:
        with suppress(OSError):
            settle(path)
        _remove(temporary)
        raise


def _begin(path: Path, need: int | None) -> Path:
    """The temporary name for `path`, where there is room for it and a folder to hold it."""
    if need is not None:
        check_space(path, need)
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _flush_folder(parent.parent)
    # No one sweeps a folder that many share, such as a cache; there, whoever writes a name again clears the way to it.
    _sweep([left for left in _siblings(path) if not _alive(left)])
    return _beside(path)


def _beside(path: Path) -> Path:
    """A temporary name next to `path`, on the same disk, that no one else uses."""
    return path.with_name(f".{path.name}.clearstory-tmp-{os.getpid()}-{next(_count)}")


def _aside(path: Path) -> Path:
    """Where an old folder waits while the new one takes its name."""
    return path.with_name(f".{path.name}.clearstory-old")


def _siblings(path: Path) -> list[Path]:
    """What stands beside a name and was made on the way to it."""
    return [found for found in path.parent.glob(f".{glob.escape(path.name)}.clearstory-*") if OURS.match(found.name)]


def _sweep(found: list[Path]) -> list[Path]:
    """Settle or remove each of these, unless someone is writing it; says which."""
    settled = []
    for path in found:
        match = OURS.match(path.name)
        assert match is not None
        whole = path.with_name(match["name"])
        if match["kind"] != "old":
            if _busy(path):
                continue
            _remove(path)
        elif any(map(_busy, _siblings(whole))) or not settle(whole):
            continue
        settled.append(path)
    return settled


def _flush(path: Path) -> None:
    step("flush", path)
    # Read and write: Windows refuses to flush what was opened for reading.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    # safetensors makes files for their owner alone; what lies beside them is readable as the user's mask says.
    path.chmod(0o666 & ~MASK)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    step("flush folder", folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            _flush(Path(here, name))
        _flush_folder(Path(here))


def _remove(path: Path) -> None:
    """Take away a temporary, whatever it is; what cannot be removed now is left to the next sweep."""
    step("remove", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[bool]:
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


def _busy(path: Path) -> bool:
    """Whether someone is writing this temporary now."""
    try:
        with _held(path) as free:
            return not free
    except OSError:  # gone, or not to be opened
        return False


def _alive(path: Path) -> bool:
    """Whether the process that made a temporary may still be there; between making and locking it, it is not busy."""
    pid = re.search(r"-tmp-(\d+)-", path.name)
    if pid is None or os.name == "nt":  # to ask there is to end it
        return True
    try:
        os.kill(int(pid[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _space(path: Path, temporary: Path, need: int | None) -> Iterator[None]:
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
