"""The studio's folder, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browsing import wheel
from starlette.testclient import TestClient
from studio_home import client, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; tests that change something take a copy."""
    return make(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed, for what runs in a process of its own."""
    return wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture
def studio(made: Path) -> TestClient:
    """The studio as its own page asks it."""
    return client(made)
