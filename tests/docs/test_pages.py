"""Every example in README and docs runs.

    ```python     runs; the blocks of a page share their names
    ```console    lines after $ run; where output is shown it must match, with ... for what varies
    ```sh         runs
    ```text       is not run; nor is a block whose first line says "not run: REASON" after the language

The blocks of a page share a folder, so a later one can use the files of an earlier one. A plain `clearstory` command
runs in a fork of this process, which saves importing torch for each; tests/cli starts real processes.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clearstory.cli.main import main

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
    location: str


def examples(page: Path) -> list[Example]:
    """The blocks of a page that are run."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if "not run:" not in match[2]:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Example(match[1], match[3], f"{page.relative_to(ROOT)}:{line}"))
    return found


def shell(command: str, location: str) -> str:
    """Output of a command, both streams together; it must succeed."""
    status, output = in_fork(argv) if (argv := plain_command(command)) is not None else in_bash(command)
    assert status == 0, f"{location}: {command}\n{output}"
    return output


def plain_command(command: str) -> list[str] | None:
    """The arguments of a single `clearstory` command without shell syntax; None for anything else."""
    command = command.replace("\\\n", " ").strip()
    # A fork of a process that has computed with several OpenMP threads waits for them for ever.
    if not command.startswith("clearstory ") or not hasattr(os, "fork") or os.environ.get("OMP_NUM_THREADS") != "1":
        return None
    words = shlex.split(command, comments=True)
    if "\n" in command or re.search(r"[|&;<>$`~*?(){}]", re.sub(r"'[^']*'|\"[^\"$`]*\"", "", command)):
        return None
    return words[1:]


def in_fork(argv: list[str]) -> tuple[int, str]:
    """Exit status and output of a command in a fork of this process, where torch is imported already."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
                sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
                warnings.resetwarnings()
                signal.alarm(SECONDS)
                status = main(argv)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        ended = os.waitpid(child, 0)[1]
        output.seek(0)
        return os.waitstatus_to_exitcode(ended), output.read().decode()


def in_bash(command: str) -> tuple[int, str]:
    """Exit status and output of a command in bash."""
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
    return done.returncode, done.stdout


def lines_of(block: str) -> list[str]:
    """The commands of a block of `sh`, one by one if each is on its own line."""
    lines = re.split(r"(?<!\\)\n", block.strip("\n"))
    alone = all(not line.strip() or line.startswith(("#", "clearstory ")) for line in lines)
    return [line for line in lines if line.strip() and not line.startswith("#")] if alone else [block]


def run_console(example: Example) -> None:
    """Run each command and compare its output with the shown one."""
    for part in re.split(r"^\$ ", example.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        taken = 1
        while lines[taken - 1].rstrip().endswith("\\"):
            taken += 1
        command, shown = "".join(lines[:taken]), "".join(lines[taken:])
        output = shell(command, example.location)
        if shown.strip():
            assert doctest.OutputChecker().check_output(shown, output, FLAGS), (
                f"{example.location}: {command}shown:\n{shown}output:\n{output}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for example in examples(page):
        if example.language == "python":
            exec(compile(example.text, example.location, "exec"), names)
        elif example.language == "sh":
            for command in lines_of(example.text):
                shell(command, example.location)
        else:
            run_console(example)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"
