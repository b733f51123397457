"""Training: a run is a process of its own, so it outlives the tab and the server; this begins, watches and stops it.

    DIR/runs/NAME/                 the run, as `clearstory train` writes it
    DIR/.clearstory/NAME.json      its process: number, when it began, the command line
    DIR/.clearstory/NAME.log       what it says

Everything the page shows is read from the run's own metrics.jsonl. To stop is Ctrl-C: the run saves a checkpoint, and
can be gone on with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearstory.durable import write_json
from clearstory.errors import BadInput, BadSetting, FolderExists
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.studio.model_index import list_checkpoints, relative_name, read_json_object, resolve_name
from clearstory.studio.wait_policy import original_environment

MAX_RECORDS = 4000
"""Lines of a record in one answer; the page asks for the rest."""

LOG_TAIL_BYTES = 4000
"""Bytes of what a process said that are looked at."""

COMMAND = (sys.executable, "-m", "clearstory", "train")
"""What trains: the command line, in the same Python."""

MAX_RUNS = 4
"""Trainings that may run at a time: more would only make each other slow."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run by its path in the studio's folder."""

    name: str


@dataclass(frozen=True, kw_only=True)
class RecordsRequest:
    """What a run's record has said since.

    Args:
        name: the run.
        since: where the last answer ended, in bytes.
        file: which file that was: a run that goes on writes its record anew.
    """

    name: str
    since: int = 0
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class StartRunRequest:
    """A run to be begun.

    Args:
        name: what it is to be called; it lies in runs/.
        settings: of clearstory train, under dotted keys.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class RunProcesses:
    """The runs of a folder and their processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, asked: StartRunRequest) -> dict[str, Any]:
        """Begin a run. Raises as `clearstory train` does for settings that cannot be, before anything is started."""
        name = f"runs/{check_run_name(asked.name)}"
        settings = {key: value for key, value in asked.settings.items() if value is not None and key != "out"}
        recipe = build_train_recipe({**settings, "out": str(resolve_name(self.root, name))})
        if not recipe.text:
            raise BadSetting("there is no text to learn from; name a file or a folder, or take corpus:kjv")
        folder = resolve_name(self.root, name)
        if self.alive(name):
            raise FolderExists(f"'{asked.name}' is being trained already; watch it, or choose another name")
        if folder.exists() and (folder.is_file() or any(folder.iterdir())):
            raise FolderExists(f"'{asked.name}' is there already; choose another name, or let that run go on")
        return self.start(name, command_arguments(settings))

    def resume(self, asked: RunRequest) -> dict[str, Any]:
        """Let a run go on from its newest checkpoint."""
        if self.alive(asked.name):
            raise FolderExists(f"'{asked.name}' is being trained already")
        self.folder(asked.name)
        return self.start(asked.name, ["--resume"])

    def start(self, name: str, words: Sequence[str]) -> dict[str, Any]:
        """A process that trains into a run folder."""
        running = [each for each in self.recorded() if self.alive(each)]
        if len(running) >= MAX_RUNS:
            raise BadSetting(f"{len(running)} runs are being trained already ({', '.join(running)}); stop one of them")
        file = self.file(name, ".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        command = [*COMMAND, f"--out={resolve_name(self.root, name)}", *words]
        with self.file(name, ".log").open("wb") as log:
            # A session of its own: Ctrl-C in the server's terminal is not meant for it.
            child = subprocess.Popen(
                command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**original_environment(), "NO_COLOR": "1"},
            )  # fmt: skip
        self.children[name] = child
        write_json(file, {"name": name, "pid": child.pid, "began": process_start_time(child.pid), "words": list(words)})
        return self.status(name)

    def stop(self, asked: RunRequest) -> dict[str, Any]:
        """Ask a run to save a checkpoint and end."""
        process = self.process(asked.name)
        if process is None:
            raise BadInput(f"'{asked.name}' is not being trained here, so there is nothing to stop")
        os.kill(process, signal.SIGINT)
        return {**self.status(asked.name), "state": "stopping"}

    def status(self, name: str) -> dict[str, Any]:
        """How a run stands: running, finished, stopped or failed, its settings, and what its process said last."""
        folder = resolve_name(self.root, name)
        alive = self.alive(name)
        said = self.said(name)
        config = read_config(folder)
        known = folder.is_dir() and bool(config)
        if not known and not said and not alive:
            raise BadInput(f"there is no run '{name}' in the studio's folder any more; choose another")
        ended = last_record(folder / "metrics.jsonl").get("kind") == "end"
        state = "running" if alive else "finished" if ended else "stopped" if known else "failed"
        if state == "stopped" and not was_stopped(said) and said.startswith("clearstory train:"):
            state = "failed"
        return {
            "name": name,
            "state": state,
            "said": said,
            "config": config,
            "steps": [step for step, _ in list_checkpoints(folder)],
            "has_model": (folder / "model" / "config.json").is_file(),
        }

    def rows(self, asked: RecordsRequest) -> dict[str, Any]:
        """The lines of a record from a place on: whole lines only, as many as one answer holds."""
        status = self.status(asked.name)
        record = resolve_name(self.root, asked.name) / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        since, file = asked.since, ""
        try:
            with record.open("rb") as opened:
                seen = os.fstat(opened.fileno())
                file = f"{seen.st_ino}"
                if file != asked.file or since > seen.st_size or since < 0:
                    since = 0
                opened.seek(since)
                for line in opened:
                    if not line.endswith(b"\n") or len(rows) == MAX_RECORDS:
                        break
                    since += len(line)
                    row = parse_record(line)
                    rows += [row] if row else []
        except FileNotFoundError:
            since = 0
        more = len(rows) == MAX_RECORDS
        return {"rows": rows, "since": since, "file": file, "anew": file != asked.file, "more": more, **status}

    def curve(self, asked: RunRequest) -> dict[str, Any] | None:
        """A run's learning curve over the reference of its kind, as the library makes it; None before a first look."""
        from clearstory.recipes.training.learning_curve import learning_curve
        from clearstory.recipes.training.run_folder import RunFolder

        folder = self.folder(asked.name)
        recipe = build_train_recipe(read_yaml(folder / "config.yaml"))
        corpus = Path(recipe.text[0]).name if recipe.text else "its text"
        view = learning_curve(RunFolder(folder), recipe.default_name, corpus.removeprefix("corpus:"))
        return None if view is None else view.to_json()

    def folder(self, name: str) -> Path:
        """A run's folder. Raises BadInput where it is gone."""
        folder = resolve_name(self.root, name)
        if not (folder / "config.yaml").is_file():
            raise BadInput(f"there is no run '{name}' in the studio's folder any more; choose another")
        return folder

    def recorded(self) -> list[str]:
        """Runs that were begun from a studio here, the newest last."""
        files = sorted((self.root / ".clearstory").glob("*.json"), key=lambda each: each.stat().st_mtime)
        return [name for each in files if isinstance(name := read_json_object(each).get("name"), str)]

    def alive(self, name: str) -> bool:
        """Whether a run's process is at work."""
        return self.process(name) is not None

    def process(self, name: str) -> int | None:
        """The process that trains a run; None where there is none, and where its number is somebody else's now."""
        child = self.children.get(name)
        if child is not None and child.poll() is not None:
            return None
        said = read_json_object(self.file(name, ".json"))
        pid = said.get("pid")
        if not isinstance(pid, int) or pid < 2:
            return None
        return pid if child is not None or (process_start_time(pid) is not None and process_start_time(pid) == said.get("began")) else None

    def said(self, name: str) -> str:
        """The last line that a run's process has said."""
        try:
            with self.file(name, ".log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def file(self, name: str, suffix: str) -> Path:
        """A file about a run's process, beside the runs."""
        folder = resolve_name(self.root, name)
        return self.root / ".clearstory" / f"{relative_name(self.root, folder).replace('/', '.')}{suffix}"


def check_run_name(name: str) -> str:
    """A run's name: letters, digits and -_. of any language, as one folder's name. Raises BadSetting for any other."""
    name = name.strip()
    if not name or name.startswith(".") or len(name) > 80 or not all(c.isalnum() or c in "-_." for c in name):
        raise BadSetting(f"'{name}' is no name for a run; take letters, digits and - _ . such as book-1")
    return name


def command_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the words of a command line, what is learnt from last."""
    words: list[str] = []
    text: list[str] = []
    for key, value in settings.items():
        many = value if isinstance(value, list | tuple) else [value]
        if key == "text":
            text = [str(each) for each in many]
            continue
        words += [f"--{key}={str(each).lower() if isinstance(each, bool) else each}" for each in many]
    return [*words, "--", *text]


def process_start_time(pid: int) -> str | None:
    """When a process began, as the system counts it; None where there is no such process at work."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return start_time_from_ps(pid) if not Path("/proc/self/stat").exists() else None
    return None if told[0] == "Z" else told[19]


def start_time_from_ps(pid: int) -> str | None:
    """The same where there is no /proc."""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def read_config(folder: Path) -> dict[str, Any]:
    """A run's settings; none where there are none yet, or they cannot be read."""
    try:
        return read_yaml(folder / "config.yaml")
    except BadInput:
        return {}


def last_record(record: Path) -> dict[str, Any]:
    """The last whole line of a record."""
    try:
        with record.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - 65_536))
            lines = opened.read().split(b"\n")
    except OSError:
        return {}
    return next((row for line in reversed(lines) if (row := parse_record(line))), {})


def parse_record(line: bytes) -> dict[str, Any]:
    """A line as an object; an empty one where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def was_stopped(said: str) -> bool:
    """Whether a process's last words say that it was asked to stop."""
    return "stopped at step" in said
