"""Writing: files and folders by way of a temporary name, and what killed writers leave, swept up."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clearstory.durable.disk import (
    check_space,
    flush,
    flush_folder,
    flush_tree,
    translate_disk_full,
    locked,
    remove,
    call_hooks,
    absolute_path,
)
from clearstory.errors import BadInput

# Long enough that no file of a user's is ever taken for one of ours.
TEMPORARY_NAME = re.compile(r"^\.(?P<name>.+)\.clearstory-(?P<kind>tmp-\d+-\d+|old)$")

_count = itertools.count()


def write_bytes(path: Path | str, data: bytes) -> None:
    """Put `data` where `path` says, replacing what was there. Raises OutOfSpace."""
    if any(TEMPORARY_NAME.match(parent.name) for parent in Path(path).parents):
        # A folder on its way to its name is flushed whole; one file of it needs no care of its own.
        call_hooks("write", Path(path))
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
    path = absolute_path(path)
    if path.is_dir():
        raise BadInput(f"{path} is a folder, and a file should be written there; remove it or choose another name")
    with _replacing(path, need, Path.touch, flush) as temporary:
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
    path = absolute_path(path)
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, and a folder should be written there; remove it or choose another name")
    recover(path)
    with _replacing(path, need, Path.mkdir, flush_tree) as temporary:
        yield temporary


def remove_folder(path: Path | str) -> None:
    """Take away a folder so that no half of it is ever found under its name."""
    path = absolute_path(path)
    doomed = _beside(path)
    call_hooks("doom", path)
    os.rename(path, doomed)
    remove(doomed)


def current_path(path: Path | str) -> Path:
    """Where the contents of a folder stand: under its name, or set aside by a writer that was killed in between."""
    path = absolute_path(path)
    return _aside(path) if not path.exists() and _aside(path).exists() else path


def recover(path: Path | str) -> bool:
    """End the half-done replacement of one folder, if there is one: back to the old, or on with the new."""
    path = absolute_path(path)
    aside = _aside(path)
    if not os.path.lexists(aside):
        return False
    if path.exists():
        # Renamed first, so that whatever bears the aside name is complete.
        doomed = _beside(path)
        call_hooks("doom", aside)
        os.rename(aside, doomed)
        remove(doomed)
    else:
        call_hooks("restore", path)
        os.rename(aside, path)
    flush_folder(path.parent)
    return True


def remove_stale(folder: Path | str) -> list[Path]:
    """Undo what killed writers left in a folder, beneath it, and beside it under its name; says what was settled.

    What another process is writing at this moment is left alone. Call it when a run begins.
    """
    folder = absolute_path(folder)
    settled = _sweep(_siblings(folder))
    for here, folders, files in os.walk(folder):
        ours = [name for name in folders + files if TEMPORARY_NAME.match(name)]
        folders[:] = [name for name in folders if name not in ours]
        settled += _sweep([Path(here, name) for name in ours])
    return settled


@contextmanager
def _replacing(
    path: Path, need: int | None, make: Callable[[Path], None], flush: Callable[[Path], None]
) -> Iterator[Path]:
    """The road of the picture above, for files and folders alike."""
    temporary = _begin(path, need)
    try:
        with translate_disk_full(path, temporary, need):
            call_hooks("make", temporary)
            make(temporary)
            with locked(temporary):
                call_hooks("write", temporary)
                yield temporary
                flush(temporary)
                if path.is_dir():
                    call_hooks("aside", path)
                    os.rename(path, _aside(path))
                call_hooks("rename", path)
                os.replace(temporary, path)
            # Before the old one goes: after a loss of power, one of the two must be there.
            flush_folder(path.parent)
            recover(path)
    except BaseException:
        with suppress(OSError):
            recover(path)
        remove(temporary)
        raise


def _begin(path: Path, need: int | None) -> Path:
    """The temporary name for `path`, where there is room for it and a folder to hold it."""
    if need is not None:
        check_space(path, need)
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        flush_folder(parent.parent)
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
    return [found for found in path.parent.glob(f".{glob.escape(path.name)}.clearstory-*") if TEMPORARY_NAME.match(found.name)]


def _sweep(found: list[Path]) -> list[Path]:
    """Settle or remove each of these, unless someone is writing it; says which."""
    settled = []
    for path in found:
        match = TEMPORARY_NAME.match(path.name)
        assert match is not None
        whole = path.with_name(match["name"])
        if match["kind"] != "old":
            if _busy(path):
                continue
            remove(path)
        elif any(map(_busy, _siblings(whole))) or not recover(whole):
            continue
        settled.append(path)
    return settled


def _busy(path: Path) -> bool:
    """Whether someone is writing this temporary now."""
    try:
        with locked(path) as free:
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
