"""Odd values for every setting of every command: a sentence and an exit status, never a traceback."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearstory.cli.arguments import UsageError, flag_name
from clearstory.cli.command import prepare_command
from clearstory.cli.main import COMMANDS, load_command, main
from clearstory.errors import ClearstoryError
from clearstory.recipes.settings.schema import Setting, setting_table
from clearstory.text.sources import save_standard_input
from trained import flags, text_file

ODD = (
    "", " ", "-1", "0", "1e308", "1e-320", "nan", "inf", "-inf", "9" * 400, "99999999999", "2147483648", "null", "true",
    "\udcff", "\udcff.txt", "a\0b", "-", "--", "/proc/self/mem", "/dev/null", "~nobody/x", "[1,2]", "1,2", "é" * 300,
    "x" * 5000, "\N{GRINNING FACE}", "1_0", "0x10", "²", "cuda", "meta", "5", "2.5", ".", "''", "%s", "{}",
)  # fmt: skip

ARGUMENTS = {
    "generate": ["run", "the", "--max-tokens", "2"],
    "chat": ["run", "--chat-template", "chatml", "--max-tokens", "2"],
    "fill-mask": ["run", "a"],
    "embed": ["run", "a"],
    "classify": ["run", "a"],
    "translate": ["run", "a"],
    "tag": ["run", "a"],
    "prompt": ["run", "--template", "{text} {label}", "--examples", "text.txt"],
    "evaluate": ["run", "text.txt", "--limit", "50"],
    "inspect": ["run", "the cat"],
    "convert": ["run", "out.gguf", "--overwrite"],
    "plan": ["gpt2", "--no-measure"],
    "data": ["text.txt"],
    "doctor": ["--no-measure"],
    "models": [],
    "completion": ["bash"],
}
"""Arguments with which each command runs in a moment."""


def odd_command_lines(name: str, arguments: list[str]) -> Iterator[list[str]]:
    """Every setting of a command with every odd value."""
    for key, setting in setting_table(load_command(name).recipe).items():
        for value in ODD:
            if not setting.positional or "." in key or setting.path[-1] == "name":
                yield [*arguments, f"{flag_name(key)}={value}"]
            elif not value.startswith("--"):
                position = [each.key for each in positionals(name)].index(key)
                yield [*arguments[:position], value, *arguments[position + 1 :]]


def positionals(name: str) -> list[Setting]:
    """The positional settings of a command, in order."""
    return [each for each in setting_table(load_command(name).recipe).values() if each.positional]


@pytest.mark.parametrize("name", COMMANDS)
def test_odd_values_are_settings_or_refused_in_a_sentence(name: str) -> None:
    command, lines = load_command(name), list(odd_command_lines(name, ["a"] * len(positionals(name))))
    for words in random.Random(0).sample(lines, min(len(lines), 400)):
        sentence = ""
        try:
            prepare_command(command, words)
        except (UsageError, ClearstoryError) as error:
            sentence = str(error)
        assert "\n" not in sentence, words
        assert len(sentence) < 6000, words


@pytest.mark.parametrize("words", [["generate", "\udcff"], ["doctor", "--measure=\udcff"]])
def test_what_is_not_unicode_is_printed_escaped(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (1, 2)
    assert "\\udcff" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_odd_values_end_in_an_exit_status(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(flags(text_file(tmp_path), tmp_path / "run")) == 0
    for words in odd_command_lines(name, ARGUMENTS[name]):
        save_standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
        capsys.readouterr()
        status = main([name, *words])
        err = capsys.readouterr().err
        assert status in (0, 1, 2), words
        assert "Traceback" not in err
        assert status != 2 or len(err.splitlines()) == 1, words
