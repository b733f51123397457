"""Errors of the file system as one sentence with path, reason and remedy, independent of the library."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearstory.errors import ClearstoryError, DiskError, OutOfSpace

FULL = (errno.ENOSPC, errno.EDQUOT)

FULL_MESSAGE = re.compile(r"No space left on device|unexpected pos \d+ vs \d+|Disk quota exceeded")
"""Messages of a full disk that carry no number: the system, torch's zip writer, the system again."""

ERROR_NUMBER = re.compile(r"\(?os error (\d+)\)?|\[Errno (\d+)\]")
"""The number of a system error in the message of another library: Rust's (safetensors), Python's."""

REASONS = {
    errno.EACCES: "is not permitted; check the permissions, or choose another path",
    errno.EPERM: "is not permitted; check the permissions, or choose another path",
    errno.EROFS: "is not possible, the disk is read-only; choose a path on another disk",
    errno.EIO: "failed with an input/output error of the disk; check the disk, or choose another",
    errno.EFBIG: "exceeds the maximum file size of this disk or of this process (ulimit -f); choose another disk",
    errno.ENAMETOOLONG: "is not possible, the name is too long; choose a shorter one",
    errno.ENOTDIR: "is not possible, a part of the path is a file and not a folder; choose another path",
    errno.EISDIR: "is not possible, it is a folder and a file is needed; choose another path",
    errno.EMFILE: "failed, this process has too many open files (ulimit -n); raise the limit",
    errno.ENFILE: "failed, the system has too many open files; close other programs",
    errno.ENOENT: "failed, the file or its folder does not exist; check the path",
    errno.EBUSY: "failed, another program is using it; close that program",
    errno.ETXTBSY: "failed, another program is using it; close that program",
    errno.ELOOP: "is not possible, its symbolic links form a circle; choose another path",
    errno.ENOTEMPTY: "failed, a folder that should be replaced is in use; close the program that writes there",
    errno.EMLINK: "failed, the disk has too many links to this file; choose another path",
}
"""Per error number: what happened, and what to do. Other numbers are reported in the system's own words."""


def disk_error(action: str, path: Path | str, error: OSError) -> DiskError:
    """The sentence of an error of the system, such as "writing X is not permitted; check ..."

    >>> str(disk_error("reading", "a.txt", OSError(errno.EIO, "Input/output error")))
    'reading a.txt failed with an input/output error of the disk; check the disk, or choose another'
    """
    if error.errno in FULL:
        return OutOfSpace(full_disk_sentence(Path(path), None))
    words = (error.strerror or str(error) or type(error).__name__).lower()
    reason = REASONS.get(error.errno or 0, f"failed ({words}); check this path, or choose another")
    return DiskError(f"{action} {path} {reason}")


@contextmanager
def translate_disk_errors(
    path: Path, *, action: str = "writing", temporary: Path | None = None, need: int | None = None
) -> Iterator[None]:
    """Context manager that raises errors of the system, from any library, as DiskError.

    An error about another file, such as one that is read in the block, is reported with the name of that file.
    """
    try:
        yield
    except ClearstoryError:
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        known = system_error(error)
        if known is None:
            raise
        if known.errno in FULL:
            raise OutOfSpace(full_disk_sentence(path, need, written_bytes(temporary or path))) from error
        other = other_file(known, path, temporary)
        raise disk_error("reading" if other else action, other or path, known) from error


def system_error(error: BaseException) -> OSError | None:
    """The error of the system that an exception reports, or None: an OSError, or a message that quotes one."""
    if isinstance(error, OSError):
        return None if isinstance(error, BrokenPipeError) else error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        return None
    message = str(error)
    if FULL_MESSAGE.search(message):
        return OSError(errno.ENOSPC, message)
    if match := ERROR_NUMBER.search(message):
        number = int(match[1] or match[2])
        return OSError(number, os.strerror(number))
    return None


def other_file(error: OSError, path: Path, temporary: Path | None) -> str | None:
    """The file that an error names, where it is not the one that is written."""
    name = error.filename
    if not isinstance(name, str | bytes) or not name:
        return None
    named = Path(os.path.abspath(os.fsdecode(name)))
    ours = [path, *([temporary] if temporary else [])]
    if named in path.parents or any(named == each or each in named.parents for each in ours):
        return None
    return None if ".clearstory-" in named.name else os.fsdecode(name)


def written_bytes(path: Path) -> int:
    """The size in bytes of a file, or of everything in a folder; 0 where that cannot be read."""
    try:
        files = [path, *path.rglob("*")] if path.exists() else []
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0


def full_disk_sentence(path: Path, need: int | None, written: int = 0, free: int | None = None) -> str:
    """That a disk is full: how much was needed, as far as it is known, and how much there is."""
    free = free_bytes(path) if free is None else free
    needs = f"needs {need:,} bytes" if need is not None else f"needs more than {written:,} bytes"
    has = "its disk is full" if free is None else f"its disk has {free:,} bytes free"
    return f"writing {path} {needs} and {has}; free some space or choose another folder"


def free_bytes(path: Path) -> int | None:
    """Free bytes of the disk where `path` is or would be; None if that cannot be read."""
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        return shutil.disk_usage(path).free
    except OSError:
        return None
