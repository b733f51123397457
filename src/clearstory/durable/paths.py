"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """The path with the home folder in place of a leading ~ or ~user; unchanged where there is no such user, since it
    may be a text.

    >>> expand_home("~ nobody's home").name
    "~ nobody's home"
    """
    return Path(os.path.expanduser(path))
