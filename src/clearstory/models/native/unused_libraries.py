"""Unused libraries: compiled kernels of other versions and compilers in the cache folder that no process loads.

Every process that loads a library sets its modification time, at most once a day. One that compiles a new library
removes those that nobody has loaded for UNUSED_DAYS. A process that has loaded one keeps it in memory.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

UNUSED_DAYS = 30

DAY = 24 * 60 * 60


def mark_used(path: Path) -> None:
    """Note that a library is loaded today."""
    with suppress(OSError):  # a cache that is only read, or a library that has gone
        if time.time() - path.stat().st_mtime > DAY:
            os.utime(path)


def remove_unused(folder: Path, keep: Path) -> None:
    """Remove the libraries that nobody has loaded for UNUSED_DAYS, those with names of earlier versions, which nobody
    looks for, and the folders of compilations that were killed; not `keep`.
    """
    for path in folder.iterdir():
        with suppress(OSError):  # another process has removed it, or Windows has it loaded
            days = (time.time() - path.lstat().st_mtime) / DAY
            if path.is_dir() and days > 1:
                shutil.rmtree(path)
            elif path.suffix == ".so" and path != keep and (days > UNUSED_DAYS or "-" not in path.stem):
                path.unlink()
