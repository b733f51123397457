"""clearstory generate: prompts on the command line, in files and on standard input."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearstory.cli.main import main
from clearstory.cli.standard_input import has_piped_input
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that continues texts, and the same with a chat template."""
    home = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer("bytes", [])
    model = build(replace(TINY_GPT2, vocab=tokenizer.vocab, context=64), seed=1)
    save_model(home / "plain", model, tokenizer, ModelCard())
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    chat = Tokenizer(tokenizer.contents, {**tokenizer.config, "chat_template": template})
    save_model(home / "chat", model, chat, ModelCard())
    return home


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """The JSON object of a command, or its status and its error."""
    capsys.readouterr()
    status = main(["generate", *map(str, words), "--json", "--max-tokens", "3", "--seed", "1"])
    out, err = capsys.readouterr()
    return {**json.loads(out), "stderr": err} if status == 0 else {"status": status, "error": err}


def test_prompts_come_from_lines_records_and_standard_input(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines.txt").write_text("one\n\ntwo\r\nthree", encoding="utf-8")
    rows = [{"text": "one", "other": "1"}, {"text": "two", "other": "2"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def prompts(*words: str | Path) -> list[str]:
        out = run(capsys, folder / "plain", *words)
        return [each["prompt"] for each in out.get("completions", [out])]

    assert prompts("--prompts-file", tmp_path / "lines.txt") == ["one", "two", "three"]
    assert prompts("--prompts-file", tmp_path / "rows.jsonl") == ["one", "two"]
    assert prompts("--prompts-file", tmp_path / "rows.jsonl", "--text-field", "other") == ["1", "2"]
    for words, expected in ((["-"], ["a\nb"]), (["--prompts-file", "-"], ["a", "b"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
        assert prompts(*words) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\r\n\r\nb \r\n")))
    assert prompts("--prompts-file", "-") == ["a", "b "]
    both = run(capsys, folder / "plain", "a", "--prompts-file", tmp_path / "lines.txt")
    assert "leave one of them out" in both["error"]
    missing = run(capsys, folder / "plain", "--prompts-file", tmp_path / "none.txt")
    assert "there is no file" in missing["error"]


@pytest.mark.slow
def test_a_pipe_is_the_prompt_if_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "clearstory", "generate", str(folder / "plain"), "--json", "--max-tokens", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    piped = subprocess.run(command, input=b"a pipe\n", capture_output=True, check=True, env=environment)
    assert json.loads(piped.stdout)["prompt"] == "a pipe"
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert not has_piped_input()


def test_a_chat_prints_its_answer_and_one_note(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, folder / "chat", "Hi")
    assert out["chat"] is True
    assert out["stderr"].count("note:") == 1
    assert run(capsys, folder / "chat", "Hi", "--raw")["stderr"] == ""
    assert main(["generate", str(folder / "chat"), "Hi", "--max-tokens", "3", "--seed", "1"]) == 0
    assert capsys.readouterr().out == f"{out['text']}\n"
    assert main(["generate", str(folder / "plain"), "Hi", "--max-tokens", "3", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("Hi")


def test_several_prompts_are_printed_one_after_the_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo\n", encoding="utf-8")
    words = ["--prompts-file", str(tmp_path / "lines.txt"), "--max-tokens", "2", "--seed", "1", "--stop", "\n"]
    assert main(["generate", str(folder / "plain"), *words]) == 0
    printed = capsys.readouterr().out
    assert printed.index("one") < printed.index("two")
    assert main(["generate", str(folder / "chat"), *words]) == 0
    assert capsys.readouterr().out.startswith("> one\n")
