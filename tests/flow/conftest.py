"""One finished run that the tests of a flow share, and the command line as a function."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clearstory import durable
from clearstory.cli.main import main
from trained import flags, text_file
from unsynced import no_fsync

__all__ = ["no_fsync"]


class Made(NamedTuple):
    """A run folder that nobody writes to, the text it learnt, and what `train --json` said."""

    run: Path
    text: Path
    said: dict[str, Any]


class Answer(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on standard error: the sentence of a failure."""
        return self.err.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight steps from the command line."""
    home = tmp_path_factory.mktemp("made")
    text, out = text_file(home), io.StringIO()
    with redirect_stdout(out):
        assert main([*flags(text, home / "run"), "--data.cache", str(home / "cache"), "--json"]) == 0
    assert out.getvalue().count("\n") == 1
    return Made(home / "run", text, json.loads(out.getvalue()))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process."""

    def run(*words: str | Path) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _no_listeners() -> Iterator[None]:
    yield
    durable.hooks.clear()
