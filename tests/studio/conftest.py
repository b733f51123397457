"""The studio's folder, made once, and a browser that looks at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Open, Visit, serving, wheel
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


@pytest.fixture(scope="module")
def home(made: Path) -> Path:
    """The folder that pages are over; a module that needs more in it has its own."""
    return made


@pytest.fixture(scope="module")
def window() -> Mapping[str, Any]:
    """What a browser's window is like unless a visit says otherwise; a module may have its own."""
    return {"width": 1280, "scheme": "light", "motion": "no-preference"}


@pytest.fixture(scope="module")
def server(home: Path, installed: Path) -> Iterator[str]:
    """The address of a studio over that folder."""
    with serving(installed, home) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # Chromium's own sandbox asks for rights that containers do not give.
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, server: str, window: Mapping[str, Any]) -> Iterator[Open]:
    """Opens the studio; in the end nothing has gone elsewhere and nothing has gone wrong."""
    contexts: list[Any] = []
    visits: list[Visit] = []

    def opened(url: str = server, width: int = window["width"], scheme: str = window["scheme"], **state: Any) -> Visit:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, reduced_motion=window["motion"]))
        contexts[-1].grant_permissions(["clipboard-read", "clipboard-write"])
        visits.append(Visit(contexts[-1].new_page(), url))
        visits[-1].listen()
        return visits[-1].open(**state)

    yield opened
    for each in contexts:
        each.close()
    assert not [url for each in visits for url in each.foreign]
    assert not [fault for each in visits for fault in each.faults]
