"""Shell completion: what is offered at each position of a command line, and the script in a running bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clearstory.cli.completion import FILES, SCRIPTS, complete
from clearstory.cli.main import COMMANDS, load_command
from clearstory.lens.registry import VIEWS
from clearstory.models.families import PRESETS
from clearstory.recipes.settings.schema import setting_table


def words_for(*words: str, shell: str = "fish") -> list[str]:
    """The candidates without their help."""
    return [line.partition("\t")[0] for line in complete(shell, words)]


def test_commands_presets_views_and_choices_are_offered() -> None:
    assert set(words_for("")) == {*COMMANDS, "help", "--help", "--version"}
    assert words_for("fil") == ["fill-mask"]
    assert set(words_for("train", "--model", "")) == set(PRESETS)
    assert set(words_for("plan", "")) == set(PRESETS)
    assert set(words_for("inspect", "runs/a", "text", "--view", "")) == set(VIEWS)
    assert words_for("train", "--training.optimizer", "") == ["adamw", "muon", "sgd"]
    assert words_for("train", "--training.optimizer=a") == ["--training.optimizer=adamw"]
    assert words_for("compare", "--models", "ngram,aw") == ["ngram,awd-lstm"]
    assert words_for("help", "train", "l") == words_for("train", "--help", "l") == ["lora"]
    assert words_for("completion", "") == list(SCRIPTS)
    assert words_for("doctor", "") == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_offered(name: str) -> None:
    offered = words_for(name, "--")
    for key, setting in setting_table(load_command(name).recipe).items():
        if not setting.positional:
            assert any(word.removeprefix("--no-").strip("-").replace("-", "_") == key for word in offered)
    assert {"--json", "--config", "--help"} <= set(offered)


def test_files_are_offered_where_a_file_can_stand() -> None:
    for words in (["generate", ""], ["train", ""], ["train", "a.txt", ""], ["train", "--out", ""], ["embed", "m", "a"]):
        assert words_for(*words)[-1] == FILES
    assert FILES not in words_for("train", "--steps", "")
    assert FILES not in words_for("train", "--mod")
    assert words_for("train", "corpus:k") == ["corpus:kjv", FILES]


def test_completion_imports_no_torch() -> None:
    code = (
        "import sys; from clearstory.cli.completion import complete; complete('bash', ['inspect', 'm', '--view', ''])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy"} & set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="this system has no bash")
def test_bash_completes_words_colons_equals_signs_and_files(tmp_path: Path) -> None:
    program = tmp_path / "clearstory"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m clearstory "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "a book.txt").write_text("x", encoding="utf-8")
    lines = ["train --model cle", "train --model = cle", "train corpus : kj", "train a\\ b", "inspect m t --view atte"]
    calls = "".join(
        f'COMP_WORDS=(clearstory {line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _clearstory; IFS="|"; '
        'echo "${COMPREPLY[*]}"; IFS=" "\n'
        for line in lines
    )
    script = f"{SCRIPTS['bash']}\ncomplete -p clearstory\n{calls}"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -F _clearstory clearstory",
        "clear|clear-translate",
        "clear|clear-translate",
        "kjv",
        "a book.txt",
        "attention",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_have_no_syntax_error(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"this system has no {shell}")
    subprocess.run([shell, "-n"], input=SCRIPTS[shell], text=True, check=True)
