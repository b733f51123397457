"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from clearstory.errors import BadInput


def expand_home(path: str | Path) -> Path:
    """The path with the home folder in place of a leading ~ or ~user; unchanged if there is no such user, since it
    can be a text.

    >>> expand_home("~ nobody's home").name
    "~ nobody's home"
    """
    return Path(os.path.expanduser(path))


def find_named_file(source: str | Path) -> Path | None:
    """The file whose path is a text; None if there is no such file. Raises BadInput for a Path that does not exist.

    >>> find_named_file("Is this a file?") is None
    True
    """
    path = expand_home(source)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long for a path, or with a NUL
        pass
    if isinstance(source, Path):
        raise BadInput(f"there is no file {path}; check the path, or give the text itself")
    return None
