"""A browser in front of the studio: the installed wheel, Debian's Chromium, and an ear on all that it asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
SCREENSHOTS = os.environ.get("CLEARSTORY_SCREENSHOTS")
"""A folder for pictures of every page, to be looked at; none are taken when it is not named."""

WAIT = int(os.environ.get("CLEARSTORY_BROWSER_WAIT", "60000"))
"""Milliseconds: a model is opened behind some of these answers, on a machine that may be busy."""


def needs_browser() -> None:
    """Skip the module that calls it, with the reason, where its pages cannot be opened."""
    pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright: pip install clearstory[test]")
    if not CHROMIUM.exists():
        pytest.skip(
            f"pages are tested in Chromium, which is not at {CHROMIUM}: apt-get install chromium, or name it in "
            "CHROMIUM",
            allow_module_level=True,
        )


def wheel(folder: Path) -> Path:
    """The package as it is installed: built into a wheel and unpacked, so that what is not packaged is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the wheel cannot be built here ({done.stderr.strip().splitlines()[-1:]}); install hatchling")
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@contextmanager
def serving(installed: Path, folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The studio of that package in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clearstory", "studio", str(folder), "--port", str(port), "--json"],
        env={**os.environ, "PYTHONPATH": str(installed)}, stdout=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


Open = Callable[..., "Visit"]


@dataclass
class Visit:
    """A page in the browser, and what went wrong in it.

    Args:
        page: playwright's.
        url: the studio's.
        foreign: requests to anywhere else.
        faults: violations of the policy, errors that nobody caught.
    """

    page: Any
    url: str
    foreign: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Hear everything."""
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda request: self.heard(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self.console(message))

    def heard(self, url: str) -> None:
        """A request."""
        if not url.startswith((self.url, "blob:")):
            self.foreign.append(url)

    def console(self, message: Any) -> None:
        """A line of the console; that an answer was 4xx is what some tests want."""
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def open(self, **state: Any) -> Visit:
        """Open the page as an address says, and wait until it is painted."""
        from urllib.parse import urlencode

        self.page.goto(f"{self.url}?{urlencode(state)}")
        return self.ready()

    def ready(self) -> Visit:
        """Wait until nothing is being asked for."""
        self.page.locator('body[data-ready="true"]').wait_for()
        return self

    def choose(self, page: str) -> Visit:
        """Choose a page in the rail, which may be folded or a menu."""
        button = self.page.locator("#rail-button")
        if button.get_attribute("aria-expanded") == "false":
            button.click()
        self.page.locator(f'#rail a[data-page="{page}"]').click()
        self.page.locator(f'body[data-page="{page}"]').wait_for()
        return self.ready()

    def settings(self, card: str) -> None:
        """Open the settings of a card."""
        self.page.locator(f'[data-card="{card}"] summary', has_text="Settings").click()

    def numbers(self, selector: str, name: str = "data-value") -> list[float]:
        """What elements say of themselves, to the last digit."""
        found = [each.get_attribute(name) for each in self.page.locator(selector).all()]
        return [float(each) for each in found if each]

    def shot(self, name: str) -> None:
        """A picture, where a folder for them is named."""
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(200)  # bars grow
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)
