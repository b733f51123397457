"""Help pages, short and by section, the table of presets, and output that is closed or full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clearstory.cli.main import COMMANDS, load_command, main
from clearstory.models.families import PRESETS
from clearstory.recipes.planning.plan import plan
from clearstory.recipes.presets import list_presets
from clearstory.recipes.settings.schema import setting_table


def page(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command line prints on standard output, which must succeed."""
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_command_and_command_help_are_the_same_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert page(["help", name], capsys) == page([name, "--help"], capsys) == page(["--help", name], capsys)


def test_help_alone_is_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert page(["help"], capsys) == page(["--help"], capsys) == page([], capsys)
    assert "clearstory help COMMAND" in page(["help"], capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["help", "trian"], "did you mean 'train'?"),
        (["help", "train", "trainning"], "did you mean 'training'?"),
        (["train", "--help", "gpt2"], "no section 'gpt2'; known: all, data, hmm"),
        (["help", "embed", "lora"], "it is one page"),
    ],
)
def test_help_for_what_does_not_exist_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_help_of_train_is_short_and_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    short, whole = page(["train", "--help"], capsys), page(["train", "--help", "all"], capsys)
    assert len(short.splitlines()) < 120 < len(whole.splitlines())
    assert all(name in short for name in PRESETS)
    assert set(load_command("train").common) <= set(setting_table(load_command("train").recipe))
    assert all(f"--{key} " in short or f"--{key}\n" in short for key in load_command("train").common)


def test_the_sections_are_the_whole_page_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    whole = page(["help", "train", "all"], capsys)
    sections = ("transformer", "recurrent", "hmm", "ngram", "lora", "training", "data")
    rows = [line for name in sections for line in page(["help", "train", name], capsys).splitlines() if "  --" in line]
    assert rows
    assert set(rows) <= set(whole.splitlines())
    for key, setting in setting_table(load_command("train").recipe).items():
        if not setting.positional:
            assert f"--{key.replace('_', '-') if '.' not in key else key}" in whole
    assert "--model.states" in page(["help", "train", "hmm"], capsys)
    assert "--model.states" not in page(["help", "train", "recurrent"], capsys)


def test_models_lists_every_preset_with_the_numbers_of_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert set(listed) == set(PRESETS)
    for name in ("gpt2", "qwen3-0.6b", "clear", "bert-mini", "t5-v1.1-small", "gru", "hmm"):
        estimate = plan(name, measure=False)
        assert listed[name]["parameters"] == estimate.parameters
        assert listed[name]["context"] == estimate.config.context
    assert listed["ngram"]["parameters"] is None
    assert listed["gpt2"]["parameters"] == 124_439_808
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {each.name} " in shown and each.use.split()[0] in shown for each in list_presets())


def run_piped(words: list[str], lines: int, tmp_path: Path) -> tuple[int, str]:
    """(exit status, standard error) of a command whose reader closes the pipe after some lines."""
    with (tmp_path / "err").open("w+b") as err:
        process = subprocess.Popen([sys.executable, "-m", "clearstory", *words], stdout=subprocess.PIPE, stderr=err)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        status = process.wait(60)
        err.seek(0)
        return status, err.read().decode()


@pytest.mark.parametrize("words", [["train", "--help", "all"], ["models"], ["doctor", "--no-measure", "--json"]])
def test_a_closed_pipe_ends_a_command_without_a_word(words: list[str], tmp_path: Path) -> None:
    status, err = run_piped(words, 0, tmp_path)
    assert err == ""
    assert status == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_one_sentence() -> None:
    for words in (["models"], ["models", "--json"], ["--help"]):
        with open("/dev/full", "wb") as full:
            command = [sys.executable, "-m", "clearstory", *words]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("clearstory: no space left on device")
        assert len(done.stderr.splitlines()) == 1


def test_a_closed_standard_output_is_no_failure() -> None:
    command = f"{sys.executable} -m clearstory models >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_of_help_is_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "help"]) == 0
    assert "usage: clearstory COMMAND" in capsys.readouterr().out
