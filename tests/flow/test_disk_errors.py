"""Every command that writes: an error of the disk at any operation is a sentence, and older files stay whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clearstory
from clearstory import durable
from clearstory.cli.main import main
from clearstory.errors import DiskError
from trained import all_events, flags, recipe, text_file

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EDQUOT, errno.EMFILE)


@pytest.fixture(autouse=True)
def _no_hooks() -> Iterator[None]:
    yield
    durable.hooks.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a finished run."""
    home = tmp_path_factory.mktemp("made")
    all_events(recipe(text_file(home), home / "run", **{"data.cache": home / "cache", "tokenizer": "bytes"}))
    return home


def commands(home: Path) -> dict[str, list[str]]:
    """The commands that write, each over what is there already."""
    run, text = str(home / "run"), home / "text.txt"
    cache = ("--data.cache", str(home / "cache"))
    return {
        "train": flags(text, home / "run", "--overwrite", *cache),
        "resume": ["train", "--resume", "--out", run, "--steps", "12"],
        "fine-tune": [
            "train", str(text), "--init", run, "--steps", "2", "--lora.rank", "2", "--out", run + "-lora", *cache
        ],
        "folder": ["convert", run, str(home / "folder"), "--overwrite"],
        "gguf": ["convert", run, str(home / "x.gguf"), "--overwrite"],
        "view": ["inspect", run, "the cat", "--view", "next-token", "--out", str(home / "view.svg")],
        "compare": [
            "compare", str(text), "--models", "ngram:order=2", "--one-epoch", "--out", str(home / "comparison"),
            "--overwrite", "--tokenizer", "characters", *cache,
        ],
    }  # fmt: skip


def run_quietly(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    status = main(words)
    return status, capsys.readouterr().err


def places_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """The operations of a command: label and file name."""
    heard: list[tuple[str, str]] = []
    durable.hooks.append(lambda label, path: heard.append((label, path.name.partition(".clearstory")[0])))
    status, said = run_quietly(words, capsys)
    durable.hooks.clear()
    assert status == 0, said
    return heard


def fail_at(place: int, number: int) -> Callable[[str, Path], None]:
    left = [place]

    def fail(label: str, path: Path) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(number, os.strerror(number), str(path))

    return fail


def check_at(places: list[int], words: list[str], made: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fail at each of these operations; the models that were there open as before, or as new ones."""
    for turn, place in enumerate(places):
        durable.hooks.append(fail_at(place, ERRORS[turn % len(ERRORS)]))
        status, said = run_quietly(words, capsys)
        durable.hooks.clear()
        lines = [line for line in said.splitlines() if line.startswith("clearstory")]
        assert status == 1, (place, said)
        assert "Traceback" not in said
        assert any("writing" in line or "deleting" in line or "reading" in line for line in lines[-1:]), said
        durable.remove_stale(home)
        for folder in (home / "run", home / "folder"):
            if (folder / "config.json").exists() or (folder / "model").exists():
                clearstory.open(folder)
        shutil.rmtree(home)
        shutil.copytree(made, home)


CASES = [pytest.param(name, 2, id=f"{name}, some") for name in ("train", "folder", "gguf", "view")]
CASES += [pytest.param(name, 10**6, id=f"{name}, all", marks=pytest.mark.slow) for name in commands(Path())]


@pytest.mark.parametrize(("name", "share"), CASES)
def test_an_error_at_any_operation_is_a_sentence(
    name: str, share: int, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "gguf":
        pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")
    home = tmp_path / "home"
    shutil.copytree(made, home)
    words = commands(home)[name]
    heard = places_of(words, capsys)
    shutil.rmtree(home)
    shutil.copytree(made, home)
    distinct = [place for place, each in enumerate(heard) if each not in heard[:place]]
    assert distinct
    check_at(distinct[:: max(1, len(distinct) // share)], words, made, home, capsys)


def test_an_output_that_is_a_device_or_a_full_disk(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(made / "run"), "the", "--view", "next-token", "--out", "/dev/full"]) in (1, 2)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(DiskError, match="writing"), durable.appending("/dev/full"):
        Path("/dev/full").write_bytes(b"x")
    assert not Path("/dev/full").is_file()
