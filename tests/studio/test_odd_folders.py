"""Odd folders: models are listed whatever else a folder holds, and only regular files are opened."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from studio_home import client

from clearstory.errors import BadInput
from clearstory.studio.model_cache import ModelCache
from clearstory.studio.model_index import IndexedModel, find_model, list_models

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000

CONFIGS = {
    "number-as-text": '{"model_type": "gpt2", "clearstory": {"card": {"trained_on": [5]}}}',
    "texts-nested": '{"model_type": "gpt2", "clearstory": {"card": {"trained_on": [[], [[1]], {"a": 1}, ["kjv", 7]]}}}',
    "surrogate": '{"model_type": "\\ud800", "clearstory": {"card": {"trained_on": [["\\udfff", 1]]}}}',
    "card-is-text": '{"model_type": "gpt2", "clearstory": {"card": "x"}}',
    "own-is-list": '{"model_type": "gpt2", "clearstory": [1]}',
    "numbers": '{"model_type": "gpt2", "clearstory": {"card": {"parameters": ' + "9" * 400 + ', "bits_per_byte": {}}}}',
    "long-number": f'{{"model_type": "gpt2", "vocab_size": {LONG}}}',
    "deep": f'{{"model_type": {DEEP}}}',
    "type-is-list": '{"model_type": ["gpt2"], "architectures": 7}',
    "not-json": "{",
    "empty": "",
    "binary": "\0\1\2",
}
"""The text of a config.json by the name of its folder."""

HEADERS = {
    "memory": '{"w": {"shape": [500000000, [0]]}}',
    "negative": '{"w": {"shape": [-1]}}',
    "huge": '{"w": {"shape": [1000000, 1000000, 1000000]}}',
    "shape-is-text": '{"w": {"shape": "12"}}',
    "list": "[1, 2]",
    "no-shape": '{"w": 5}',
    "nested": f'{{"w": {DEEP}}}',
    "digits": f'{{"w": {{"shape": [{LONG}]}}}}',
}
"""The header of a model.safetensors by the name of its folder."""


@pytest.fixture
def odd(made: Path, tmp_path: Path) -> Path:
    """A folder with one good model, and one odd folder of each kind."""
    (tmp_path / "good").symlink_to(made / "models" / "clear")
    for name, text in CONFIGS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text, encoding="utf-8")
    for name, header in HEADERS.items():
        add_weights(tmp_path / name, header)
    for name, make in IRREGULAR.items():
        for file in ("config.json", "model.safetensors"):
            folder = add_weights(tmp_path / f"{name}-{file}", "{}")
            (folder / file).unlink()
            make(folder / file)
    os.mkfifo(tmp_path / "pipe.gguf")
    run = tmp_path / "run"
    (run / "checkpoints" / f"step-{LONG[:200]}").mkdir(parents=True)
    (run / "config.yaml").write_text("model: clear\n", encoding="utf-8")
    os.mkfifo(run / "metrics.jsonl")
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(name)
    (Path(os.fsdecode(name)) / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    return tmp_path


def add_weights(folder: Path, header: str) -> Path:
    """A model folder whose weights file has this header; returns the folder."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    data = header.encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    return folder


def refuse_reading(path: Path) -> None:
    """A file that may not be read; the superuser may read it all the same, so it is missing there."""
    path.write_bytes(b"{}")
    path.chmod(0)


IRREGULAR = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "unreadable": refuse_reading,
}
"""What stands in place of a file, and how it is made."""


def test_every_odd_folder_is_listed_with_a_reason_and_the_others_as_ever(odd: Path) -> None:
    answer = client(odd).get("/api/models")
    assert answer.status_code == 200, answer.text
    listed = {row["name"]: row for row in answer.json()["models"]}
    assert listed["good"]["problem"] is None
    assert listed["good"]["parameters"] > 0
    for name in (*CONFIGS, *HEADERS, *(f"{kind}-config.json" for kind in IRREGULAR), "pipe.gguf", "run"):
        if name != "unreadable-config.json":  # the superuser reads it
            assert listed[name]["problem"], name
    assert "named pipe" in listed["pipe-config.json"]["problem"]
    assert "device" in listed["device-model.safetensors"]["problem"]
    assert "too deep" in listed["deep"]["problem"] or "recursion" in listed["deep"]["problem"]
    assert "surrogate" in listed["surrogate"]["problem"]
    assert listed["texts-nested"]["trained_on"] == ["kjv"]
    assert listed["numbers"]["parameters"] is None
    strange = next(row for name, row in listed.items() if name.startswith("caf"))
    assert "not UTF-8" in strange["problem"]


def test_headers_that_promise_gigabytes_take_no_memory(tmp_path: Path) -> None:
    for name, header in HEADERS.items():
        add_weights(tmp_path / name, header)
    tracemalloc.start()
    models, complete = list_models(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert complete
    assert len(models) == len(HEADERS)
    assert all("cannot be read" in str(each.problem) for each in models)
    assert peak < 2**27


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_model_with_a_pipe_or_a_device_is_not_opened(odd: Path, kind: str, file: str) -> None:
    with pytest.raises(BadInput, match="might never end"):
        ModelCache(odd).get(f"{kind}-{file}")


def test_pipes_and_devices_stop_no_request(odd: Path) -> None:
    studio = client(odd)
    (odd / "clear").symlink_to(os.readlink(odd / "good"))
    for name in ("pipe.gguf", "pipe-config.json", "device-model.safetensors", "run"):
        assert studio.post("/api/view", json={"model": name, "text": "the cat"}).status_code == 400
        found = studio.get("/api/model", params={"name": name})
        assert found.status_code == 400 or found.json()["model"]["problem"]
        assert studio.get("/api/runs/records", params={"name": name}).status_code in (200, 400)
    assert studio.post("/api/view", json={"model": "clear", "text": "the cat"}).status_code == 200


def test_one_odd_folder_that_breaks_the_index_is_listed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> dict[str, Any]:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr("clearstory.studio.model_index.read_model_facts", broken)
    problems = {each.name: each.problem for each in list_models(made)[0]}
    assert "ZeroDivisionError: seven" in str(problems["models/clear"])


@pytest.fixture
def many(made: Path, tmp_path: Path) -> Path:
    """A folder of 10,000 entries and one model, whose folder also has 10,000 entries."""
    (tmp_path / "zoo").symlink_to(made / "models" / "clear")
    for number in range(5000):
        (tmp_path / f"{number}.txt").touch()
    folder = add_weights(tmp_path / "many", "{}")
    for number in range(5000):
        (folder / f"part-{number}.safetensors").touch()
    return tmp_path


def test_folders_of_thousands_of_entries_are_listed(many: Path) -> None:
    models, complete = list_models(many)
    assert complete
    assert {each.name for each in models} == {"many", "zoo"}


def test_names_that_cannot_be_paths_are_sentences(made: Path) -> None:
    studio = client(made)
    for name in ("x" * 300, "/".join(["x" * 100] * 40), "a\0b", "..", "models/../..", "\\"):
        assert studio.get("/api/model", params={"name": name}).status_code == 400
    found: IndexedModel = find_model(made, "models/clear")
    assert json.dumps(found.parameters) != "null"
