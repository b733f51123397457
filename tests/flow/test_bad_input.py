"""Bad input: one sentence with the remedy, and no partly written files."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory import durable
from clearstory.training import checkpoint
from clearstory.training.trainer import Trainer
from trained import contents, flags, words

Cli = Callable[..., Any]


def assert_refused(answer: Any, *parts: str, status: int = 1, last: bool = False) -> None:
    """One sentence on stderr, nothing on stdout, the right status. `last`: after the output of a run."""
    assert answer.status == status, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = answer.err.strip().splitlines()
    assert lines if last else len(lines) == 1, answer.err
    for part in parts:
        assert part in lines[-1]


TEXTS: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "empty": ("empty.txt", b"", ("empty.txt is empty",)),
    "binary": ("photo.txt", b"\x89PNG" + b"a" * 96 + b"\0" * 9, ("photo.txt is binary", "offset 100")),
    "not UTF-8": ("old.txt", b"caf" * 40 + b"\xe9 " * 2, ("old.txt is not UTF-8: byte 0xe9 at offset 120",)),
    "half a character": ("cut.txt", "é".encode()[:1] * 1, ("cut.txt is not UTF-8: byte 0xc3 at offset 0",)),
    "shorter than a context": ("short.txt", b"tiny text", ("8 tokens, but one window needs 9", "--training.context 7")),
    "a field that is missing": (
        "a.jsonl",
        b'{"text": "one"}\n\n{"txt": "two"}\n',
        ("a.jsonl, line 3 has no field 'text', only 'txt'", "--data.text_field"),
    ),
    "no JSON": ("b.jsonl", b'{"text": "one"}\n{"text": \n', ("b.jsonl, line 2 is not JSON",)),
    "no text": ("c.jsonl", b'{"text": "one"}\n{"text": 7}\n', ("c.jsonl, line 2", "'text' is int, not text")),
    "cut off": ("d.txt.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", ("d.txt.gz is truncated",)),
    "no parquet": ("e.parquet", b"PAR1" + b"x" * 40, ("e.parquet is truncated or not a parquet file",)),
}


@pytest.mark.parametrize(("name", "data", "says"), TEXTS.values(), ids=TEXTS.keys())
def test_a_text_that_cannot_be_trained_on(
    name: str, data: bytes, says: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / name).write_bytes(data)
    before = contents(tmp_path)
    assert_refused(cli(*flags(tmp_path / name, tmp_path / "run")), *says)
    assert contents(tmp_path).keys() - before.keys() == cached(tmp_path)
    assert not (tmp_path / "run").exists()


def cached(home: Path) -> set[str]:
    """Cached token ids, which are no part of a run."""
    return {name for name in contents(home) if name.startswith("cache/")}


def test_a_missing_text(tmp_path: Path, cli: Cli) -> None:
    assert_refused(cli(*flags(tmp_path / "nowhere.txt", tmp_path / "run")), "there is no file or folder", "nowhere.txt")
    assert_refused(cli(*flags(tmp_path / "*.txt", tmp_path / "run")), "no file matches", "*.txt")
    assert_refused(cli("train", "--out", tmp_path / "run"), "there is no text to train on")
    (tmp_path / "nothing").mkdir()
    assert_refused(cli(*flags(tmp_path / "nothing", tmp_path / "run")), "has no text files; supported")
    assert [path.name for path in tmp_path.iterdir()] == ["nothing"]


def test_invalid_utf8_can_be_replaced(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "old.txt").write_bytes(words().encode() + b"caf\xe9 " + words(seed=1).encode())
    assert_refused(cli(*flags(tmp_path / "old.txt", tmp_path / "run")), "--errors replace")
    answer = cli(*flags(tmp_path / "old.txt", tmp_path / "run"), "--data.errors", "replace", "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["tokens"] > 0
    assert_refused(cli("evaluate", tmp_path / "run", tmp_path / "old.txt"), "not UTF-8", "--errors replace")
    assert cli("evaluate", tmp_path / "run", tmp_path / "old.txt", "--errors", "replace", "--json").status == 0


@pytest.mark.parametrize("flag", ["--errors", "--data.errors"])
def test_both_names_of_a_flag_are_understood_by_both_commands(flag: str, made: Any, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "old.txt").write_bytes(words().encode() + b"caf\xe9")
    assert cli(*flags(tmp_path / "old.txt", tmp_path / "run"), flag, "replace").status == 0
    assert cli("evaluate", made.run, tmp_path / "old.txt", flag, "replace").status == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "clera"], "did you mean 'clear'?"),
        (["--objective", "casual"], "did you mean 'causal'?"),
        (["--training.optimizer", "adam"], "did you mean 'adamw'?"),
        (["--training.learning-rte", "1"], "did you mean --training.learning_rate?"),
        (["--training.batch_size", "0"], "training.batch_size is 0; it must be at least 1"),
        (["--steps", "many"], "it must be an integer"),
        (["--training.context", "-1"], "training.context is -1; it must be at least 1"),
    ],
)
def test_names_and_values_that_do_not_exist(made: Any, tmp_path: Path, cli: Cli, words: list[str], says: str) -> None:
    assert_refused(cli("train", made.text, "--out", tmp_path / "run", *words), says, status=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--training.device", "cuda:99"], "training.device is 'cuda:99'"),
        (["--model.context", "4"], "training.context is 8 and model.context 4"),
        (["--model.heads", "3", "--model.kv_heads", "2"], "cannot share"),
        (["--tokenizer", "byte"], "did you mean"),
        (["--data.validation", "0", "--training.patience", "2"], "training.patience is 2 and data.validation 0"),
    ],
)
def test_contradicting_settings(made: Any, tmp_path: Path, cli: Cli, words: list[str], says: str) -> None:
    assert_refused(cli(*flags(made.text, tmp_path / "run"), *words), says)
    assert not (tmp_path / "run").exists()


def copy(made: Any, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(made.run, tmp_path / "run")
    return tmp_path / "run"


def half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


BROKEN: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "weights cut off": ("model.safetensors", half, ("model.safetensors",)),
    "weights empty": ("model.safetensors", lambda file: file.write_bytes(b""), ("model.safetensors",)),
    "weights of noise": ("model.safetensors", lambda file: file.write_bytes(b"\xff" * 999), ("model.safetensors",)),
    "weights missing": ("model.safetensors", Path.unlink, ("model.safetensors",)),
    "config cut off": ("config.json", half, ("config.json",)),
    "config a list": ("config.json", lambda file: file.write_text("[]"), ("config.json",)),
    "tokenizer cut off": ("tokenizer.json", half, ("tokenizer",)),
    "tokenizer empty": ("tokenizer.json", lambda file: file.write_text("{}"), ("tokenizer",)),
    "tokenizer missing": ("tokenizer.json", Path.unlink, ("tokenizer.json",)),
}


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
@pytest.mark.parametrize(("name", "damage", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_model_folder_that_is_damaged(
    name: str,
    damage: Callable[[Path], object],
    says: tuple[str, ...],
    verb: str,
    made: Any,
    tmp_path: Path,
    cli: Cli,
) -> None:
    run = copy(made, tmp_path)
    damage(run / "model" / name)
    before = contents(tmp_path)
    assert_refused(cli(verb, run, *(["the"] if verb == "generate" else [made.text])), *says)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_checkpoint_that_is_damaged(name: str, made: Any, tmp_path: Path, cli: Cli) -> None:
    run = copy(made, tmp_path)
    half(run / "checkpoints" / "step-000008" / name)
    before = contents(run)
    assert_refused(
        cli("train", "--resume", "--out", run, "--steps", "12"), "the checkpoint", "step-000008", "is damaged"
    )
    assert contents(run) == before
    # The remedy that the message names.
    shutil.rmtree(run / "checkpoints" / "step-000008")
    assert cli("train", "--resume", "--out", run, "--json").status == 0


def test_a_run_whose_settings_are_damaged(made: Any, tmp_path: Path, cli: Cli) -> None:
    run = copy(made, tmp_path)
    (run / "config.yaml").write_text("training: {seed: [")
    assert_refused(cli("train", "--resume", "--out", run), "config.yaml has changed since it was saved")
    (run / "checksums.json").unlink()
    assert_refused(cli("train", "--resume", "--out", run), "config.yaml", "not YAML")
    (run / "config.yaml").write_text("training: {sed: 1}")
    assert_refused(cli("train", "--resume", "--out", run), "did you mean 'training.seed'?")


def test_a_checkpoint_of_another_config(made: Any, tmp_path: Path, cli: Cli) -> None:
    before = contents(made.run)
    assert_refused(
        cli(*flags(made.text, made.run), "--resume", "--model.width", "32"),
        "was started with model.width 16, but now it is 32",
    )
    # Even where the settings agree, the weights must.
    run = copy(made, tmp_path)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("width: 16", "width: 32"))
    (run / "checksums.json").unlink()
    assert_refused(
        cli("train", "--resume", "--out", run),
        "the checkpoint's 'blocks.0.",
        "resume with the original settings",
    )
    assert contents(made.run) == before


def test_a_model_with_another_tokenizer(made: Any, tmp_path: Path, cli: Cli) -> None:
    run = copy(made, tmp_path)
    from clearstory.text.train_tokenizer import train_tokenizer

    train_tokenizer("bytes", []).save(run / "model")
    answer = cli("generate", run, "the")
    assert_refused(answer, "the model has a vocabulary of 20 tokens, the tokenizer one of 257")
    train_tokenizer("characters", ["abc"]).save(run / "model")  # whose ids all have other meanings
    assert_refused(cli("evaluate", run, made.text), "the model has a vocabulary of 20 tokens, the tokenizer one of")


def test_a_missing_model(made: Any, tmp_path: Path, cli: Cli) -> None:
    assert_refused(cli("generate", made.run.parent / "rum", "the"), "there is no folder", "did you mean 'run'?")
    assert_refused(cli("generate", made.text, "the"), "text.txt is not a model; supported: folders")
    (tmp_path / "nothing").mkdir()
    assert_refused(cli("evaluate", tmp_path / "nothing", made.text), "has no config.json")


def test_a_prompt_longer_than_the_context(made: Any, cli: Cli) -> None:
    words = ("generate", made.run, "the cat sat on", "--max-tokens", "3", "--seed", "1")
    assert_refused(cli(*words), "the prompt has 14 tokens and the model's context holds 8", "--truncate left")
    answer = cli(*words, "--truncate", "left", "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["tokens"] == 3


def test_a_prompt_with_an_unknown_character(made: Any, cli: Cli) -> None:
    assert cli("generate", made.run, "Ω", "--max-tokens", "2", "--json").status == 0


def test_an_output_path_that_cannot_be_written(made: Any, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    below = tmp_path / "letter.txt" / "view.svg"
    assert_refused(
        cli("inspect", made.run, "the", "--out", below),
        "letter.txt",
        "a part of the path is a file and not a folder; choose another path",
    )
    assert_refused(
        cli("convert", made.run, below.with_suffix("")),
        "letter.txt",
        "a part of the path is a file and not a folder; choose another path",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_output_folder_that_exists(made: Any, cli: Cli) -> None:
    before = contents(made.run)
    assert_refused(cli(*flags(made.text, made.run)), "already has a run", "--resume", "--overwrite")
    assert contents(made.run) == before


@pytest.mark.parametrize("at", ["step-000004", "model", "metrics.jsonl", "config.yaml"])
def test_a_disk_that_fills(at: str, made: Any, tmp_path: Path, cli: Cli) -> None:
    """One sentence and no temporary files; with free space again, the run resumes and ends the same."""
    run = tmp_path / "run"

    def full(label: str, path: Path) -> None:
        if at in str(path.relative_to(run)) and label in ("flush", "append") and (at != "model" or has_checkpoint(run)):
            raise OSError(errno.ENOSPC, "No space left on device")

    def quietly(label: str, path: Path) -> None:
        if path.is_relative_to(run):
            full(label, path)

    durable.hooks.append(quietly)
    assert_refused(cli(*flags(made.text, run)), "needs ", "bytes free; free some space or choose another", last=True)
    durable.hooks.clear()
    assert not [path for path in tmp_path.rglob("*") if durable.TEMPORARY_NAME.match(path.name)]
    for folder in checkpoint.list_checkpoints(run):
        checkpoint.load_checkpoint(folder)
    answer = cli(*flags(made.text, run), "--resume", "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["bits_per_byte"] == made.said["bits_per_byte"]


def has_checkpoint(run: Path) -> bool:
    """Whether there is a checkpoint, which has a file called model.safetensors too."""
    return (run / "checkpoints" / "step-000000").is_dir()


def test_a_loss_that_is_not_finite(made: Any, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "clip_gradients", lambda trainer: float("inf"))
    assert_refused(
        cli(*flags(made.text, tmp_path / "run")), "the loss became", "(gradient norm inf) at step 1", last=True
    )
    saved = checkpoint.load_checkpoint(checkpoint.list_checkpoints(tmp_path / "run")[-1])
    assert all(torch.isfinite(value).all() for value in saved.model.values())
