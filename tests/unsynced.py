"""Files without fsync, which takes a third of the time of tests that train and save; a process that is killed loses
nothing by that. Folders of tests import the fixture into their conftest.py; tests/test_durable.py does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_fsync() -> Iterator[None]:
    """Nothing waits for the disk, in this process and those that are forked from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
