"""One writer per folder: a lock that the system releases when its process ends for any reason.

The lock is on the file `.clearstory-lock` in the folder, which contains the process, its command and its start time for
the error message of another process. The file alone is not a lock: a process that is killed leaves it unlocked.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clearstory.durable.disk import call_hooks, make_missing_folders
from clearstory.durable.disk_errors import translate_disk_errors
from clearstory.errors import BadInput, FolderInUse

LOCK_FILE = ".clearstory-lock"

HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Error numbers of the system if another process holds the lock; others mean that the disk does not support locks."""

LOCKED_BYTE = 2**30
"""Windows locks ranges of bytes, and a locked one cannot be read: one beyond the end of the file."""

MAX_COMMAND = 200

_handles: set[int] = set()


@dataclass(frozen=True)
class FolderLock:
    """A folder that this process may write. `note` warns if the disk does not support locks."""

    folder: Path
    note: str | None = None


@contextmanager
def lock_folder(folder: Path | str) -> Iterator[FolderLock]:
    """A block that holds the lock of a folder, which is made if it is missing, and removed again if it stays empty.

    Raises FolderInUse at once, with the other process, where one holds it; DiskError where the folder cannot be made.
    """
    folder = Path(os.path.abspath(folder))
    with translate_disk_errors(folder):
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        make_missing_folders(folder)
        handle, supported = _acquire(folder)
    try:
        note = (
            None
            if supported
            else f"the disk of {folder} does not support locks; make sure that no other process writes there"
        )
        yield FolderLock(folder, note)
    finally:
        _release(folder, handle)
        with contextlib.suppress(OSError):
            for each in missing:  # the deepest first; only empty ones can be removed
                each.rmdir()


def lock_holder(folder: Path | str) -> str | None:
    """The process that holds the lock of a folder, such as "process 12 (clearstory train) since ..."; None if none."""
    path = Path(folder) / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _lock(handle) is not False else _describe(path)
    finally:
        os.close(handle)


def _acquire(folder: Path) -> tuple[int, bool]:
    """A handle that holds the lock, and whether the disk has locks."""
    path = folder / LOCK_FILE
    while True:
        call_hooks("lock", path)
        regular = True
        with contextlib.suppress(FileNotFoundError):
            regular = stat.S_ISREG(os.lstat(path).st_mode)  # one call: another process may remove the file meanwhile
        if not regular:  # a link's target would be overwritten
            raise BadInput(f"{path} is not a regular file, but the folder's lock must be one; delete it")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # the one before has just removed the folder, which was empty
            make_missing_folders(folder)
            continue
        locked = _lock(handle)
        if locked is False:
            os.close(handle)
            raise FolderInUse(
                f"{folder} is in use by {_describe(path)}; wait until it ends, stop it, or choose another folder"
            )
        # The one before removes the file when it ends: what was locked then has no name any more.
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        os.close(handle)
    _handles.add(handle)
    about = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": _command(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(about).encode())
    return handle, locked is True


def _release(folder: Path, handle: int) -> None:
    """Remove the file, then its lock; on Windows an open file cannot be removed."""
    if handle not in _handles:  # a forked child
        return
    _handles.discard(handle)
    path = folder / LOCK_FILE
    with contextlib.suppress(OSError):
        if os.name != "nt":
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(handle)
    with contextlib.suppress(OSError):
        if os.name == "nt":
            path.unlink()


def _lock(handle: int) -> bool | None:
    """Lock an open file: True if this process has the lock now, False if another has, None if the disk has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


def _describe(path: Path) -> str:
    """The process that wrote a lock file."""
    for _ in range(20):  # it may have locked the file and not yet written it
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            host = "" if about["host"] == socket.gethostname() else f" on {about['host']}"
            return f"process {about['process']}{host} ({about['command']}), since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.005)
    return "another process"


def _command() -> str:
    """The command line of this process."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    words = " ".join([program or "python", *sys.argv[1:]])
    return words if len(words) <= MAX_COMMAND else f"{words[:MAX_COMMAND]}…"


def _close_in_child() -> None:
    """A forked child closes its copies, which would hold the lock after the end of its parent."""
    for handle in _handles:
        with contextlib.suppress(OSError):
            os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
