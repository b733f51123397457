"""Runs are processes of their own: begun from a form, watched by their records, stopped and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_home import client

from clearstory.recipes.settings.schema import setting_table
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.studio import run_processes
from clearstory.studio.process_times import process_start_time
from clearstory.studio.run_processes import command_arguments
from trained import MODEL, TRAINING, text_file

PATIENCE = 120.0
"""Seconds: torch is imported in each process, on a machine that may be busy."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with nothing but a text."""
    text_file(tmp_path)
    return tmp_path


def settings(**more: Any) -> dict[str, Any]:
    """The settings of a tiny run, as the form sends them."""
    result = {"text": ["text.txt"], "model": MODEL["name"], "tokenizer": "characters", "steps": 8}
    result |= {f"model.{key}": value for key, value in MODEL.items() if key != "name"}
    result |= {f"training.{key}": value for key, value in TRAINING.items()}
    return {**result, **more}


def until(true: Callable[[], Any]) -> Any:
    """The first true value of a function; fails after a timeout."""
    end = time.monotonic() + PATIENCE
    while not (result := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return result


def records(studio: TestClient, name: str = "runs/one", **query: Any) -> dict[str, Any]:
    """The records of a run."""
    answer = studio.get("/api/runs/records", params={"name": name, **query})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def once_recorded(result: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The response once it has a record of a kind; None before."""
    return result if any(row["kind"] == kind for row in result["records"]) else None


def test_a_run_is_started_stopped_resumed_and_outlives_the_server(home: Path) -> None:
    studio = client(home)
    more = {"steps": 100_000, "training.eval_steps": 50, "training.save_steps": 50, "training.sample_steps": 20}
    begun = studio.post("/api/runs", json={"name": "one", "settings": settings(**more)})
    assert begun.status_code == 201, begun.text
    assert begun.json()["state"] == "running"
    # Another tab, the same name: a sentence, and the run goes on.
    again = studio.post("/api/runs", json={"name": "one", "settings": settings()})
    assert again.status_code == 409
    assert "is being trained already" in again.json()["error"]
    assert studio.get("/api/models").json()["training"] == ["runs/one"]
    first = until(lambda: (result := records(studio))["records"] and result)
    # The server is killed; a new one, which has no child, finds the run and reads on where the page had read to.
    later = client(home)
    second = until(lambda: once_recorded(records(later, offset=first["offset"], file=first["file"]), "evaluation"))
    assert second["state"] == "running"
    assert not second["restarted"]
    steps = [row["step"] for row in (*first["records"], *second["records"]) if row["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))  # no line twice, none left out
    assert any(row["kind"] == "sample" and row["text"] for row in records(later)["records"])
    assert later.get("/api/runs/learning-curve", params={"name": "runs/one"}).json()["view"]["kind"] == "curve"
    assert later.post("/api/runs/stop", json={"name": "runs/one"}).status_code == 200
    stopped = until(lambda: (result := records(studio))["state"] != "running" and result)
    assert stopped["state"] == "stopped"
    assert "stopped at step" in stopped["message"]
    assert stopped["has_model"]
    reached = max(row["step"] for row in stopped["records"])
    assert reached in stopped["steps"]  # the checkpoint of where it was stopped
    answer = later.post("/api/runs/resume", json={"name": "runs/one"})
    assert answer.status_code == 200, answer.text
    until(lambda: max(row["step"] for row in records(later)["records"]) > reached)
    assert records(later)["state"] == "running"
    assert later.post("/api/runs/resume", json={"name": "runs/one"}).status_code == 409
    later.post("/api/runs/stop", json={"name": "runs/one"})
    until(lambda: records(later)["state"] == "stopped")


def test_of_simultaneous_requests_for_one_name_one_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen
    monkeypatch.setattr(run_processes, "COMMAND", (sys.executable, "-S", "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(
        run_processes.subprocess, "Popen", lambda *a, **more: started.append(original(*a, **more)) or started[-1]
    )
    # Two servers over one folder, as two terminals start them.
    studios = [client(home), client(home)]
    begun = Barrier(8)

    def start(number: int) -> int:
        begun.wait()
        answer = studios[number % 2].post("/api/runs", json={"name": "one", "settings": settings()})
        assert answer.status_code == 201 or "being trained already" in answer.json()["error"], answer.text
        return answer.status_code

    try:
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(start, range(8)))
        assert statuses == [201, *[409] * 7]
        assert len(started) == 1
        for studio in studios:
            assert studio.get("/api/models").json()["training"] == ["runs/one"]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_folder_in_use_by_another_process_is_not_trained_in(home: Path) -> None:
    from clearstory.durable import lock_folder

    with lock_folder(home / "runs" / "one"):
        answer = client(home).post("/api/runs", json={"name": "one", "settings": settings()})
    assert answer.status_code == 409
    assert f"process {os.getpid()}" in answer.json()["error"]


def test_a_run_that_fails_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What `clearstory train` does with such a text, without the seconds that torch takes to be imported.
    fails = "import sys; sys.exit('clearstory train: there is no file nowhere.txt; ' + sys.argv[-1])"
    monkeypatch.setattr(run_processes, "COMMAND", (sys.executable, "-c", fails))
    studio = client(home)
    begun = studio.post("/api/runs", json={"name": "one", "settings": settings(text=["nowhere.txt"])})
    assert begun.status_code == 201
    result = until(lambda: (result := records(studio))["state"] != "running" and result)
    assert result["state"] == "failed"
    assert "nowhere.txt" in result["message"]


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("one", {"training.learning_rate": "fast"}, "must be a number"),
        ("one", {"training.learning_rte": 1}, "did you mean 'training.learning_rate'?"),
        ("one", {"model": "clera"}, "did you mean 'clear'?"),
        ("one", {"steps": 0}, "at least 1"),
        ("one", {"minutes": 1, "steps": 5}, "give one of them"),
        ("one", {"text": []}, "no text to train on"),
        ("a/b", {}, "no valid name for a run"),
        ("..", {}, "no valid name for a run"),
        ("", {}, "no valid name for a run"),
    ],
)
def test_invalid_settings_are_rejected_before_a_process_starts(
    home: Path, name: str, given: dict[str, Any], says: str
) -> None:
    answer = client(home).post("/api/runs", json={"name": name, "settings": settings(**given)})
    assert answer.status_code in (400, 404)
    assert says in answer.json()["error"]
    assert not (home / "runs").exists()
    assert not (home / ".clearstory").exists()


def test_an_existing_folder_is_not_overwritten(folder: Path) -> None:
    answer = client(folder).post("/api/runs", json={"name": "short", "settings": settings()})
    assert answer.status_code == 409
    assert "exists already" in answer.json()["error"]


def test_records_are_read_in_parts_and_only_complete_lines(made: Path, folder: Path) -> None:
    studio = client(folder)
    whole = records(studio, "runs/short")
    assert whole["state"] == "finished"
    assert {row["kind"] for row in whole["records"]} == {"step", "evaluation", "sample", "end"}
    record = folder / "runs" / "short" / "metrics.jsonl"
    assert whole["offset"] == record.stat().st_size
    with record.open("a") as file:
        file.write('{"kind": "step", "ste')  # a line that is being written
    half = records(studio, "runs/short", offset=whole["offset"], file=whole["file"])
    assert half["records"] == []
    assert half["offset"] == whole["offset"]
    with record.open("a") as file:
        file.write('p": 9}\n')
    assert records(studio, "runs/short", offset=whole["offset"], file=whole["file"])["records"] == [
        {"kind": "step", "step": 9}
    ]
    other = record.with_suffix(".new")
    other.write_text('{"kind": "step", "step": 1}\n', encoding="utf-8")
    other.replace(record)  # as a run does that goes on
    anew = records(studio, "runs/short", offset=whole["offset"], file=whole["file"])
    assert anew["restarted"]
    assert anew["records"] == [{"kind": "step", "step": 1}]


def test_a_removed_run_is_reported(folder: Path) -> None:
    import shutil

    studio = client(folder)
    records(studio, "runs/short")
    shutil.rmtree(folder / "runs" / "short")
    answer = studio.get("/api/runs/records", params={"name": "runs/short"})
    assert answer.status_code == 400
    assert "no longer exists" in answer.json()["error"]


def test_a_reused_process_id_is_not_stopped(home: Path) -> None:
    (home / ".clearstory").mkdir()
    known = {"name": "runs/one", "pid": os.getpid(), "start_time": "1", "arguments": []}
    (home / ".clearstory" / "runs.one.json").write_text(json.dumps(known), encoding="utf-8")
    answer = client(home).post("/api/runs/stop", json={"name": "runs/one"})
    assert "is not being trained" in answer.json()["error"]
    assert process_start_time(os.getpid()) not in (None, "1")


def test_the_form_has_all_settings(studio: TestClient) -> None:
    form = studio.get("/api/train-form").json()
    known = setting_table(TrainRecipe)
    assert {row["key"] for row in form["settings"]} == set(known) - {"resume", "overwrite"}
    for row in form["settings"]:
        assert row["help"] == known[row["key"]].help
        assert tuple(row["choices"]) == known[row["key"]].choices
    assert {"clear", "ngram", "hmm", "lstm"} <= {row["name"] for row in form["presets"]}
    assert "corpus:kjv" in form["corpora"]


def test_form_settings_become_command_line_arguments() -> None:
    from clearstory.cli.arguments import parse_arguments

    result = {
        "text": ["a b.txt", "--c.txt"],
        "model": "gpt2",
        "model.layers": 2,
        "training.stateful": False,
        "minutes": 0.5,
    }
    assert build_train_recipe(
        parse_arguments(command_arguments(result), setting_table(TrainRecipe))
    ) == build_train_recipe(result)
