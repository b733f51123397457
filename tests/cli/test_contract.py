"""The contract of the command line: help, exit statuses, one JSON object on standard output, and names that exist."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clearstory.cli.main import COMMANDS, load_command, main
from clearstory.recipes.settings.schema import setting_table
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml

HEAVY = ("torch", "jaxtyping", "numpy", "yaml", "rich", "clearstory.recipes")


def imported(code: str) -> set[str]:
    """Names of the modules that are loaded after running code in a new interpreter."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_clearstory_imports_no_torch() -> None:
    assert not {"torch", "numpy", "jaxtyping"} & imported("import clearstory")


def test_the_overview_imports_nothing_heavy() -> None:
    assert not set(HEAVY) & imported("from clearstory.cli.main import main; main(['--help'])")


def test_no_commands_help_imports_torch() -> None:
    code = "from clearstory.cli.main import main, COMMANDS\nfor name in COMMANDS: main([name, '--help'])"
    assert not {"torch", "numpy", "jaxtyping", "rich"} & imported(code)


def test_the_overview_takes_no_time() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "clearstory", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    # 0.05 CPU seconds here; the machine may be busy.
    assert min(times) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"example:\n  clearstory {name}" in shown
    assert "--json" in shown
    recipe = load_command(name).recipe
    for key, setting in setting_table(recipe).items():
        assert setting.help, f"{key} has no line under Args: in {recipe.__name__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_can_be_parsed(name: str) -> None:
    from clearstory.cli.command import prepare_command

    command = load_command(name)
    for example in (command.example, *command.further_examples):
        program, command_name, *words = shlex.split(example.partition(" > ")[0].rpartition(" | ")[2])
        assert (program, command_name) == ("clearstory", name)
        prepare_command(command, words)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clearstory 0.")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "x.txt", "--trainin.seed", "1"], "did you mean --training.seed?"),
        (["train", "x.txt", "--model.layer", "1"], "did you mean --model.layers?"),
        (["train", "x.txt", "--learning-rate", "1"], "did you mean --training.learning_rate?"),
        (["train", "x.txt", "--qqq"], "see --help"),
        (["train", "x.txt", "-q"], "unknown flag -q"),
        (["train", "x.txt", "--model", "clera"], "did you mean 'clear'?"),
        (["train", "x.txt", "--training.optimizer", "adam"], "did you mean 'adamw'?"),
        (["train", "x.txt", "--training.learning_rate", "fast"], "it must be a number"),
        (["train", "x.txt", "--steps"], "--steps needs a value"),
        (["train", "x.txt", "--steps", "--resume"], "--steps needs a value"),
        (["train", "x.txt", "--steps", "0"], "at least 1"),
        (["train", "x.txt", "--steps", "5", "--minutes", "1"], "give one of them"),
        (["train", "x.txt", "--resume=perhaps"], "true or false"),
        (["generate"], "MODEL is missing"),
        (["plan", "gpt2", "gpt3"], "unexpected argument 'gpt3'; this command takes"),
        (["plan", "gpt2", "--config", "/nowhere.yaml"], "cannot be read"),
    ],
)
def test_what_does_not_exist_is_refused_with_status_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_failure_is_one_sentence_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(tmp_path / "nowhere.txt")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "nowhere.txt" in err
    assert len(err.strip().splitlines()) == 1


def resolved(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> TrainRecipe:
    """The recipe of a `train` command line, read back from --print-config."""
    assert main(["train", *words, "--print-config"]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    return build_train_recipe(read_yaml(file))


def test_dashes_underscores_equals_and_order_do_not_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = resolved(["a.txt", "b.txt", "--training.learning_rate", "3e-4", "--parameters", "1.5M"], capsys, tmp_path)
    two = resolved(["--parameters=1500k", "a.txt", "--training.learning-rate=0.0003", "b.txt"], capsys, tmp_path)
    assert one == two
    assert one.text == ("a.txt", "b.txt")
    assert one.parameters == 1_500_000


def test_a_name_and_overrides_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("model: {name: gpt2, layers: 3, dropout: 1e-1}\n", encoding="utf-8")
    recipe = resolved(["--config", str(tmp_path / "c.yaml"), "--model.layers", "2"], capsys, tmp_path)
    assert recipe.model.name == "gpt2"
    assert recipe.model.overrides == {"layers": 2, "dropout": 0.1}
    (tmp_path / "c.yaml").write_text("model: gpt2\nmodel.layers: 3\n", encoding="utf-8")
    recipe = resolved(["--config", str(tmp_path / "c.yaml"), "--model", "clear"], capsys, tmp_path)
    assert (recipe.model.name, dict(recipe.model.overrides)) == ("clear", {"layers": 3})


def test_command_line_beats_file_beats_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: nanogpt-char\ntraining: {beta2: 0.9, batch_size: 3}\nsteps: 7\n", encoding="utf-8")
    recipe = resolved(["--config", str(file), "--training.batch_size", "4"], capsys, tmp_path)
    assert recipe.training.batch_size == 4  # the command line's, not 3 or the preset's
    assert recipe.training.beta2 == 0.9  # the file's, not the preset's 0.99
    assert recipe.training.final_learning_rate == 0.1  # the preset's
    assert recipe.steps == 7
    # A run has one kind of length: a later one replaces it.
    assert resolved(["--config", str(file), "--minutes", "1"], capsys, tmp_path).steps is None


def test_null_removes_a_setting_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("out: runs/x\ntraining: {compile: on}\n", encoding="utf-8")
    recipe = resolved(["--config", str(file), "--out", "null"], capsys, tmp_path)
    assert recipe.out is None
    assert recipe.training.compile == "on"  # YAML 1.1 would have read true


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: {learning_rte: 1}", "did you mean 'training.learning_rate'?"),
        ("trainig: {seed: 1}", "did you mean 'training.seed'?"),
        ("model: {name: clear, wdth: 8}", "did you mean 'model.width'?"),
        ("seed: [1", "is not YAML"),
        ("steps: 1\nsteps: 2", "is given twice"),
        ("- 1", "has no keys and values"),
        ("steps: many", "an integer"),
        ("training: 3", "no setting called 'training'"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        (f"steps: {'9' * 5000}", "4300 digits"),
        ("steps: 1e400", "an integer"),
        ("training: &a {x: *a}", "more than 100,000 values"),
        (
            "".join(f"{c}: &{c} [{','.join(['*' + chr(ord(c) - 1)] * 9)}]\n" for c in "bcdefgh").replace("*a", "1"),
            "values",
        ),
        (b"out: caf\xe9", "not UTF-8 at byte 8"),
        ("steps: 3".encode("utf-16"), "not UTF-8 at byte 0"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_a_wrong_settings_file_is_refused_with_status_2(
    text: str | bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["train", "x.txt", "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "wrong.yaml" in err
    assert len(err.splitlines()) == 1


def json_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON object that a command prints with --json, and nothing else."""
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def test_plan_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_of(["plan", "gpt2", "--no-measure"], capsys)["parameters"] == 124_439_808


def test_doctor_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(["doctor", "--no-measure"], capsys)
    assert found["processor"]["cores"] >= 1
    assert {finding["verdict"] for finding in found["findings"]} <= {"good", "note", "bad"}


def test_data_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("häh\n" * 100, encoding="utf-8")
    found = json_of(["data", str(tmp_path), "--tokenizer", "bytes"], capsys)
    assert found["bytes"] == 500
    # Each byte is a token, and the end of the document one more, on either side of the cut.
    assert found["tokens"]["train"] + found["tokens"]["validation"] - 500 in (0, 1, 2)


def test_no_color_means_no_escapes(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-m", "clearstory", "doctor", "--no-measure"], env=environment, capture_output=True, check=True
    )
    assert b"\x1b" not in done.stdout + done.stderr
