"""The folder of what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_folder() -> Path | None:
    """clearstory under $XDG_CACHE_HOME or ~/.cache; None for a user without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "clearstory"
    except RuntimeError:  # no HOME, and no entry in the list of users
        return None
