"""Every example in README and docs runs.

    ```python     runs; the blocks of a page share their names
    ```console    lines after $ run in bash; where output is shown it must match, with ... for what varies
    ```sh         runs in bash
    ```text       is not run; nor is a block whose first line says "not run: REASON" after the language

The blocks of a page share a folder, so a later one can use what an earlier one made.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.is_file()]
BLOCK = re.compile(r"^```(python|console|sh)(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SECONDS = 120


@dataclass(frozen=True)
class Example:
    """One block of a page."""

    language: str
    text: str
    place: str


def examples(page: Path) -> list[Example]:
    """The blocks of a page that are run."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if "not run:" not in match[2]:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Example(match[1], match[3], f"{page.relative_to(ROOT)}:{line}"))
    return found


def shell(command: str, place: str) -> str:
    """What a command prints, both streams together; it must succeed."""
    here = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{place}: {command}\n{done.stdout}"
    return done.stdout


def run_console(example: Example) -> None:
    """Each command, and what is shown under it."""
    for part in re.split(r"^\$ ", example.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        taken = 1
        while lines[taken - 1].rstrip().endswith("\\"):
            taken += 1
        command, shown = "".join(lines[:taken]), "".join(lines[taken:])
        said = shell(command, example.place)
        if shown.strip():
            assert doctest.OutputChecker().check_output(shown, said, FLAGS), (
                f"{example.place}: {command}shown:\n{shown}said:\n{said}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for example in examples(page):
        if example.language == "python":
            exec(compile(example.text, example.place, "exec"), names)
        elif example.language == "sh":
            shell(example.text, example.place)
        else:
            run_console(example)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} leads to {target}, which is not there"
