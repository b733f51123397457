"""One writer per folder: the second is refused at once, and a killed one holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clearstory import durable
from clearstory.durable import folder_lock
from clearstory.errors import BadInput, FolderInUse
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.loop import train_events
from trained import recipe, text_file

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")

HOLD = """
import sys
from clearstory import durable
with durable.lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_writer_is_refused_and_told_who_is_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert durable.lock_holder(folder) is None
    with another_process(folder) as process:
        sentence = rf"run is in use by process {process.pid} \(.*\), since \d{{4}}-.*; wait until it ends"
        with pytest.raises(FolderInUse, match=sentence), durable.lock_folder(folder):
            pass
        assert f"process {process.pid}" in str(durable.lock_holder(folder))
    with durable.lock_folder(folder):
        pass
    assert list(folder.iterdir()) == []
    with durable.lock_folder(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()  # it was made for the lock, and stayed empty


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / durable.LOCK_FILE).exists()
        assert durable.lock_holder(tmp_path) is None
        with durable.lock_folder(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_children_do_not_hold_the_lock_of_their_parent(tmp_path: Path) -> None:
    with durable.lock_folder(tmp_path):
        sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        forked = os.fork()
        if forked == 0:
            signal.pause()
            os._exit(0)
    try:
        assert durable.lock_holder(tmp_path) is None
        with durable.lock_folder(tmp_path):
            pass
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        sleeper.communicate()


def test_a_forked_child_does_not_release_the_lock(tmp_path: Path) -> None:
    with durable.lock_folder(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(FolderInUse), durable.lock_folder(tmp_path):
            pass


def test_of_many_threads_one_gets_the_lock(tmp_path: Path) -> None:
    got, begin, end = list[bool](), threading.Barrier(8), threading.Event()

    def work() -> None:
        begin.wait()
        try:
            with durable.lock_folder(tmp_path / "run"):
                got.append(True)
                end.wait(10)
        except FolderInUse:
            got.append(False)
        if len(got) == 8:
            end.set()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_disk_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_lock", lambda handle: None)
    with durable.lock_folder(tmp_path) as lock:
        assert lock.note is not None
        assert "does not support locks; make sure that no other process writes there" in lock.note


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"process": 1}', "\0" * 99])
def test_a_lock_file_that_says_nothing_is_refused_all_the_same(tmp_path: Path, contents: str) -> None:
    with durable.lock_folder(tmp_path):
        (tmp_path / durable.LOCK_FILE).write_text(contents)
        with pytest.raises(FolderInUse, match="in use by another process"), durable.lock_folder(tmp_path):
            pass


@pytest.mark.parametrize("more", [{}, {"resume": True}, {"overwrite": True}], ids=["fresh", "resume", "overwrite"])
def test_a_second_training_in_one_folder_is_refused_and_changes_nothing(tmp_path: Path, more: dict[str, bool]) -> None:
    text = text_file(tmp_path)
    run = train_events(recipe(text, tmp_path / "run", **{"data.cache": tmp_path / "cache"}))
    for _ in range(5):
        next(run)
    before = {path.name for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(FolderInUse, match=rf"run is in use by process {os.getpid()} "):
        next(train_events(build_train_recipe({"text": (str(text),), "out": tmp_path / "run", **more})))
    assert {path.name for path in (tmp_path / "run").rglob("*")} == before
    for _ in run:
        pass
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 9))
    assert not (tmp_path / "run" / durable.LOCK_FILE).exists()


def test_a_lock_file_that_is_a_link_or_a_folder_is_refused_and_the_target_of_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / durable.LOCK_FILE).symlink_to(tmp_path / "precious")
    (tmp_path / "folder" / durable.LOCK_FILE).mkdir(parents=True)
    for name in ("linked", "folder"):
        with pytest.raises(BadInput, match="not a regular file"), durable.lock_folder(tmp_path / name):
            pass
    assert (tmp_path / "precious").read_text() == "text"


def test_threads_that_make_and_remove_one_folder_meet_no_error_but_that_it_is_in_use(tmp_path: Path) -> None:
    folder, entered, wrong = tmp_path / "parent" / "launch", [0], []

    def enter() -> None:
        for _ in range(300):
            try:
                with durable.lock_folder(folder):
                    entered[0] += 1
            except FolderInUse:
                pass
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert entered[0] > 0
