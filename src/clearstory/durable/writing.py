"""Writing files and folders through a temporary name, and cleaning up after killed writers."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearstory.durable.checksums import CHECKSUMS, FolderChecksums, digest_bytes, digest_file, write_checksums
from clearstory.durable.disk import (
    absolute_path,
    call_hooks,
    check_space,
    flush,
    flush_folder,
    flush_tree,
    locked,
    make_missing_folders,
    remove,
)
from clearstory.durable.disk_errors import translate_disk_errors
from clearstory.errors import BadInput

# Long enough that no file of a user's is ever taken for one of ours.
TEMPORARY_NAME = re.compile(r"^\.(?P<name>.+)\.clearstory-(?P<kind>tmp-\d+-\d+|old)$")

_count = itertools.count()


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, replacing a file there. Raises DiskError, OutOfSpace."""
    if any(TEMPORARY_NAME.match(parent.name) for parent in Path(path).parents):
        # A temporary folder is flushed as a whole; a file in it needs no temporary name of its own.
        with translate_disk_errors(absolute_path(path)):
            call_hooks("write", Path(path))
            Path(path).write_bytes(data)
        return
    with write_file(path, need=len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` as UTF-8, with its line ends unchanged.

    Of a name of a file that is not UTF-8, the bytes are written as in JSON: \\udcff.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` to `path` as indented JSON. Raises ValueError for numbers that JSON does not have."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON. Raises ValueError for numbers that JSON does not have."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def replace_files(folder: Path | str, contents: Mapping[str, bytes]) -> None:
    """Replace files of a folder, and their digests in its checksums.json, which accepts both contents meanwhile.

    A folder without checksums.json gets none.
    """
    folder = absolute_path(folder)
    before = FolderChecksums.read(folder)
    if before is None:
        for name, data in contents.items():
            write_bytes(folder / name, data)
        return
    new = {name: digest_bytes(data) for name, data in contents.items()}
    # What has no digest yet gets one when it is written.
    both = {name: [*old, new[name]] for name, old in before.files.items() if name in new}
    write_bytes(folder / CHECKSUMS, replace(before, files={**before.files, **both}).contents())
    for name, data in contents.items():
        write_bytes(folder / name, data)
    after = {**before.files, **{name: [digest] for name, digest in new.items()}}
    write_bytes(folder / CHECKSUMS, replace(before, files=after).contents())


def record_files(folder: Path | str, names: Iterable[str], *, forget: bool = False) -> None:
    """Add the digests of files to a folder's checksums.json, which is created if missing; other digests are kept,
    unless `forget`. Missing files are skipped.
    """
    folder = absolute_path(folder)
    before = None if forget else FolderChecksums.read(folder)
    digests = {name: [digest_file(folder / name)] for name in names if (folder / name).is_file()}
    files = {**(before.files if before is not None else {}), **digests}
    write_bytes(folder / CHECKSUMS, FolderChecksums(folder, files).contents())


@contextmanager
def write_file(path: Path | str, *, need: int | None = None) -> Iterator[Path]:
    """A block that writes a temporary file; it is renamed to `path` when the block ends, and removed if it fails.

    `need` is the size in bytes where it is known; it is compared with the free space before anything is written.
    """
    path = absolute_path(path)
    with translate_disk_errors(path):
        check_regular(path)
    with _replace(path, need, Path.touch, flush) as temporary:
        yield temporary


def check_regular(path: Path) -> None:
    """Raise BadInput if the path is not a file that can be replaced: a folder, a pipe, a socket or a device."""
    if not path.exists() or path.is_file():
        return
    what = "a folder" if path.is_dir() else "a device, a pipe or a socket"
    raise BadInput(f"{path} is {what}, but the output must be a file; choose another name")


@contextmanager
def write_folder(path: Path | str, *, need: int | None = None) -> Iterator[Path]:
    """A block that fills a temporary folder; it is renamed to `path` when the block ends, and removed if it fails.

    A folder of that name is replaced as a whole. `need` is the size in bytes where it is known; it is compared with the
    free space before anything is written. The folder also gets a checksums.json, with a digest of each file. Raises
    DiskError for errors of the system, OutOfSpace for a full disk, also where torch and safetensors report it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as home:
    ...     with write_folder(f"{home}/model") as folder:
    ...         _ = (folder / "config.json").write_text("{}")
    ...     os.listdir(home)
    ['model']
    """
    path = absolute_path(path)
    with translate_disk_errors(path):
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path} is a file, but the output is a folder; remove it or choose another name")
        recover(path)
    with _replace(path, need, Path.mkdir, flush_tree) as temporary:
        yield temporary
        write_checksums(temporary)


def remove_folder(path: Path | str) -> None:
    """Remove a folder, so that no part of it is ever found under its name."""
    path = absolute_path(path)
    temporary = _temporary_path(path)
    with translate_disk_errors(path, action="deleting"):
        call_hooks("delete", path)
        os.rename(path, temporary)
        remove(temporary)


def remove_file(path: Path | str) -> None:
    """Remove a file if it is there. Raises DiskError."""
    path = absolute_path(path)
    with translate_disk_errors(path, action="deleting"):
        call_hooks("delete", path)
        path.unlink(missing_ok=True)


def make_folder(path: Path | str) -> None:
    """Make a folder and its parents where they are missing. Raises DiskError."""
    path = absolute_path(path)
    with translate_disk_errors(path):
        call_hooks("make", path)
        make_missing_folders(path)


def current_path(path: Path | str) -> Path:
    """Where the contents of a folder are: under its name, or under its backup name after a writer was killed."""
    path = absolute_path(path)
    return _backup_path(path) if not path.exists() and _backup_path(path).exists() else path


def recover(path: Path | str) -> bool:
    """Finish or undo the replacement of one folder that was interrupted; whether there was one."""
    path = absolute_path(path)
    with translate_disk_errors(path):
        return _recover(path)


def _recover(path: Path) -> bool:
    backup = _backup_path(path)
    if not os.path.lexists(backup):
        return False
    if path.exists():
        # Renamed first, so that a folder with a backup name is always complete.
        temporary = _temporary_path(path)
        call_hooks("delete", backup)
        os.rename(backup, temporary)
        remove(temporary)
    else:
        call_hooks("restore", path)
        os.rename(backup, path)
    flush_folder(path.parent)
    return True


def remove_stale(folder: Path | str) -> list[Path]:
    """Recover or remove files that killed writers left in a folder, below it, and next to it; returns their paths.

    Files that another process is writing are not changed. Call it at the start of a run.
    """
    folder = absolute_path(folder)
    with translate_disk_errors(folder):
        removed = _remove_stale(_temporaries_of(folder))
        for here, folders, files in os.walk(folder):
            ours = [name for name in folders + files if TEMPORARY_NAME.match(name)]
            folders[:] = [name for name in folders if name not in ours]
            removed += _remove_stale([Path(here, name) for name in ours])
    return removed


@contextmanager
def _replace(
    path: Path, need: int | None, make: Callable[[Path], None], flush: Callable[[Path], None]
) -> Iterator[Path]:
    """The sequence in the package's docstring, for files and folders."""
    with translate_disk_errors(path):
        temporary = _prepare(path, need)
    try:
        with translate_disk_errors(path, temporary=temporary, need=need):
            call_hooks("make", temporary)
            make(temporary)
            with locked(temporary):
                call_hooks("write", temporary)
                yield temporary
                flush(temporary)
                if path.is_dir():
                    call_hooks("backup", path)
                    os.rename(path, _backup_path(path))
                call_hooks("rename", path)
                os.replace(temporary, path)
            # Before the backup is removed: after a loss of power, one of the two must be there.
            flush_folder(path.parent)
            _recover(path)
    except BaseException:
        with suppress(OSError):
            _recover(path)
        remove(temporary)
        raise


def _prepare(path: Path, need: int | None) -> Path:
    """A temporary name for `path`; checks the free space, makes parents, and removes what dead writers left."""
    if need is not None:
        check_space(path, need)
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        flush_folder(parent.parent)
    # No one calls remove_stale on a shared folder such as a cache; there, the next writer of a name cleans up.
    _remove_stale([left for left in _temporaries_of(path) if not _writer_alive(left)])
    return _temporary_path(path)


def _temporary_path(path: Path) -> Path:
    """An unused temporary name in the folder of `path`, on the same disk."""
    return path.with_name(f".{path.name}.clearstory-tmp-{os.getpid()}-{next(_count)}")


def _backup_path(path: Path) -> Path:
    """The name of an old folder while the new one takes its name."""
    return path.with_name(f".{path.name}.clearstory-old")


def _temporaries_of(path: Path) -> list[Path]:
    """Temporary files and backups of a name."""
    beside = path.parent.glob(f".{glob.escape(path.name)}.clearstory-*")
    return [found for found in beside if TEMPORARY_NAME.match(found.name)]


def _remove_stale(paths: list[Path]) -> list[Path]:
    """Recover or remove each of these, unless it is being written; returns those."""
    removed = []
    for path in paths:
        match = TEMPORARY_NAME.match(path.name)
        assert match is not None
        final = path.with_name(match["name"])
        if match["kind"] != "old":
            if _is_locked(path):
                continue
            remove(path)
        elif any(map(_is_locked, _temporaries_of(final))) or not recover(final):
            continue
        removed.append(path)
    return removed


def _is_locked(path: Path) -> bool:
    """Whether another process is writing this temporary now."""
    try:
        with locked(path) as free:
            return not free
    except OSError:  # removed, or it cannot be opened
        return False


def _writer_alive(path: Path) -> bool:
    """Whether the writer of a temporary file may still run; between creating and locking it, there is no lock."""
    pid = re.search(r"-tmp-(\d+)-", path.name)
    if pid is None or os.name == "nt":  # os.kill would end the process there
        return True
    try:
        os.kill(int(pid[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
