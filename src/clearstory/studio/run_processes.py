"""Run processes: each training run is a process of its own, independent of the browser and the server.

    DIR/runs/NAME/                 the run, as `clearstory train` or `clearstory finetune` writes it
    DIR/.clearstory/NAME.json      its process: process id, start time, arguments
    DIR/.clearstory/NAME.log       its output

Everything the page shows about a run is read from its metrics.jsonl. Stopping sends Ctrl-C: the run saves a checkpoint
and can be resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from clearstory.durable import is_regular_file, lock_folder, lock_holder, open_file, parse_json, read_file, write_json
from clearstory.errors import BadInput, BadSetting, ClearstoryError, FolderExists, FolderInUse
from clearstory.http.display_text import one_line
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.studio.bounded_files import kind_of_path, list_entries, read_json_or_empty, read_tail
from clearstory.studio.finetuning_runs import check_finetuning, evaluated_metrics, finetuning_status, is_finetuning
from clearstory.studio.http_json import check_values
from clearstory.studio.model_facts import file_size, list_checkpoints, modification_time, parse_record
from clearstory.studio.model_index import is_name_inside, relative_name, resolve_name
from clearstory.studio.process_times import process_start_time
from clearstory.studio.wait_policy import original_environment

MAX_RECORDS = 4000
"""Records in one response; the page requests the rest."""

LOG_TAIL_BYTES = 4000
"""Bytes at the end of a process's log that are read."""

LAUNCH_SECONDS = 10.0
"""Seconds to wait for another studio over the same folder that is starting a run."""

MAX_CONFIG_BYTES = 2**18
"""The largest config.yaml whose settings are shown."""

COMMAND = (sys.executable, "-m", "clearstory")
"""The program, run by the same Python interpreter."""

RunCommand = Literal["train", "finetune"]

POSITIONALS: dict[RunCommand, tuple[str, ...]] = {"train": ("text",), "finetune": ("model", "data")}
"""Settings that a command takes without a flag, in their order; the last one is a list."""

MAX_REPORT_BYTES = 2**22
"""The largest report.json that is sent."""

ERROR_STARTS = ("clearstory train:", "clearstory finetune:")
"""How the last line of a failed run's log begins."""

MAX_RUNS = 4
"""Runs that may train at the same time; more would slow each other down."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run or model by its path in the studio's folder."""

    name: str


@dataclass(frozen=True, kw_only=True)
class RecordsRequest:
    """The records of a run's metrics.jsonl after a byte offset.

    Args:
        name: the run.
        offset: the `offset` of the previous response, in bytes.
        file: the `file` of the previous response: a resumed run writes its metrics to a new file.
    """

    name: str
    offset: int = 0
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class StartRunRequest:
    """A training run to start.

    Args:
        name: the run's name; its folder is runs/NAME.
        settings: settings of the command under dotted keys.
        command: train; or finetune, with the settings model, data and task.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: RunCommand = "train"


class RunProcesses:
    """The training processes of the runs of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.lock = Lock()

    def start(self, request: StartRunRequest) -> dict[str, Any]:
        """Start a run; returns its status. Invalid settings raise as in `clearstory train`, before a process starts."""
        name = f"runs/{check_run_name(request.name)}"
        settings = {key: value for key, value in request.settings.items() if value is not None and key != "out"}
        folder = resolve_name(self.root, name)
        if request.command == "finetune":
            check_finetuning(settings, folder)
        elif not build_train_recipe({**settings, "out": str(folder)}).text:
            raise BadSetting("there is no text to train on; name a file or a folder, or use corpus:kjv")
        with self.launching():
            if self.is_alive(name):
                raise FolderExists(f"'{request.name}' is being trained already; watch it, or choose another name")
            if (holder := lock_holder(folder)) is not None:
                raise FolderInUse(f"'{request.name}' is in use by {holder}; choose another name, or stop that process")
            if os.path.lexists(folder) and (kind_of_path(folder) != "a folder" or any(folder.iterdir())):
                raise FolderExists(f"'{request.name}' exists already; choose another name, or resume that run")
            return self.launch(name, request.command, command_arguments(settings, request.command))

    def resume(self, request: RunRequest) -> dict[str, Any]:
        """Resume a run from its newest checkpoint; returns its status."""
        with self.launching():
            if self.is_alive(request.name):
                raise FolderExists(f"'{request.name}' is being trained already; watch it, or stop it first")
            if (holder := lock_holder(self.run_folder(request.name))) is not None:
                raise FolderInUse(f"'{request.name}' is in use by {holder}; stop that process first")
            config = read_config(resolve_name(self.root, request.name))
            return self.launch(request.name, "finetune" if is_finetuning(config) else "train", ["--resume"])

    @contextmanager
    def launching(self) -> Iterator[None]:
        """A block that no other thread and no other studio over this folder enters meanwhile.

        It reaches from the check that a run is free to the moment when its process is known.
        """
        end = time.monotonic() + LAUNCH_SECONDS
        with self.lock, ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(lock_folder(self.root / ".clearstory" / "launch"))
                    break
                except FolderInUse:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            yield

    def launch(self, name: str, program: RunCommand, arguments: Sequence[str]) -> dict[str, Any]:
        """Start the training process of a run folder; returns the run's status."""
        running = self.running()
        if len(running) >= MAX_RUNS:
            raise BadSetting(f"{len(running)} runs are being trained already ({', '.join(running)}); stop one of them")
        file = self.process_file(name, ".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        command = [*COMMAND, program, f"--out={resolve_name(self.root, name)}", *arguments]
        try:
            with self.process_file(name, ".log").open("wb") as log:
                # A session of its own, so that Ctrl-C in the server's terminal does not stop the training.
                child = subprocess.Popen(
                    command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env={**original_environment(), "NO_COLOR": "1"},
                )  # fmt: skip
        except (OSError, ValueError) as error:  # a setting with a zero byte, or longer than the system allows
            raise BadSetting(f"the training process cannot be started ({one_line(str(error), 200)})") from None
        self.children[name] = child
        process = {
            "name": name,
            "pid": child.pid,
            "start_time": process_start_time(child.pid),
            "arguments": list(arguments),
        }
        write_json(file, process)
        return self.status(name)

    def stop(self, request: RunRequest) -> dict[str, Any]:
        """Send Ctrl-C to a run, which saves a checkpoint and ends; returns its status with the state "stopping"."""
        pid = self.pid(request.name)
        if pid is None:
            raise BadInput(f"'{request.name}' is not being trained here, so there is nothing to stop")
        os.kill(pid, signal.SIGINT)
        return {**self.status(request.name), "state": "stopping"}

    def status(self, name: str) -> dict[str, Any]:
        """A run's state (running, finished, stopped or failed), settings, checkpoint steps, and last log line."""
        folder = resolve_name(self.root, name)
        alive = self.is_alive(name)
        message = self.last_log_line(name)
        config = read_config(folder)
        has_config = folder.is_dir() and bool(config)
        if not has_config and not message and not alive:
            raise BadInput(f"the run '{name}' no longer exists in the studio's folder; choose another")
        ended = last_record(folder / "metrics.jsonl").get("kind") == "end"
        state = "running" if alive else "finished" if ended else "stopped" if has_config else "failed"
        if state == "stopped" and not was_stopped(message) and message.startswith(ERROR_STARTS):
            state = "failed"
        return {
            "name": name,
            "state": state,
            "message": message,
            "config": config,
            "steps": [step for step, _ in list_checkpoints(folder)],
            "has_model": is_regular_file(folder / "model" / "config.json"),
            **(finetuning_status(folder, config) if is_finetuning(config) else {}),
        }

    def records(self, request: RecordsRequest) -> dict[str, Any]:
        """Complete records of metrics.jsonl from a byte offset on, at most MAX_RECORDS, and the run's status."""
        status = self.status(request.name)
        metrics = resolve_name(self.root, request.name) / "metrics.jsonl"
        records: list[dict[str, Any]] = []
        offset, file = request.offset, ""
        try:
            with open_file(metrics) as opened:
                stat = os.fstat(opened.fileno())
                file = f"{stat.st_ino}"
                if file != request.file or offset > stat.st_size or offset < 0:
                    offset = 0
                opened.seek(offset)
                for line in opened:
                    if not line.endswith(b"\n") or len(records) == MAX_RECORDS:
                        break
                    offset += len(line)
                    record = parse_record(line)
                    records += [record] if record else []
        except ClearstoryError:
            offset = 0  # not written yet
        more = len(records) == MAX_RECORDS
        return {
            "records": records,
            "offset": offset,
            "file": file,
            "restarted": file != request.file,
            "more": more,
            **status,
        }

    def learning_curve(self, request: RunRequest) -> dict[str, Any] | None:
        """A run's learning curve over the reference curve of its model family; of a fine-tuning run, its metrics. None
        before the first evaluation, of metrics before the second.
        """
        from clearstory.recipes.training.learning_curve import learning_curve
        from clearstory.recipes.training.run_folder import RunFolder

        folder = self.run_folder(request.name)
        config = read_yaml(folder / "config.yaml")
        if is_finetuning(config):
            from clearstory.recipes.finetuning.report_page import metric_curve

            curve = metric_curve(folder / "metrics.jsonl", tuple(evaluated_metrics(folder)))
            return None if curve is None else curve.to_json()
        recipe = build_train_recipe(config)
        corpus = Path(recipe.text[0]).name if recipe.text else "its text"
        view = learning_curve(RunFolder(folder), recipe.default_name, corpus.removeprefix("corpus:"))
        return None if view is None else view.to_json()

    def report(self, request: RunRequest) -> dict[str, Any] | None:
        """All scores of a fine-tuning run, as in its report.json; None before it has ended."""
        file = self.run_folder(request.name) / "report.json"
        return parse_json(read_file(file, MAX_REPORT_BYTES), file) if is_regular_file(file) else None

    def run_folder(self, name: str) -> Path:
        """A run's folder. Raises BadInput if it is gone."""
        folder = resolve_name(self.root, name)
        if not is_regular_file(folder / "config.yaml"):
            raise BadInput(f"the run '{name}' no longer exists in the studio's folder; choose another")
        return folder

    def names(self) -> list[str]:
        """Names of the runs that a studio started in this folder, oldest first."""
        files = [each for each in list_entries(self.root / ".clearstory") if each.suffix == ".json"]
        names = [read_json_or_empty(each).get("name") for each in sorted(files, key=modification_time)]
        return [name for name in names if isinstance(name, str) and is_name_inside(self.root, name)]

    def running(self) -> list[str]:
        """Names of the runs that are training, oldest first."""
        return [name for name in self.names() if self.is_alive(name)]

    def is_alive(self, name: str) -> bool:
        """Whether a run's process is running."""
        return self.pid(name) is not None

    def pid(self, name: str) -> int | None:
        """The process id of a run; None if it has ended, also if its id now belongs to another process."""
        child = self.children.get(name)
        if child is not None and child.poll() is not None:
            return None
        process = read_json_or_empty(self.process_file(name, ".json"))
        pid = process.get("pid")
        if not isinstance(pid, int) or pid < 2:
            return None
        if child is not None:
            return pid
        start_time = process_start_time(pid)
        return pid if start_time is not None and start_time == process.get("start_time") else None

    def last_log_line(self, name: str) -> str:
        """The last non-empty line of a run's log; empty if there is none."""
        lines = read_tail(self.process_file(name, ".log"), LOG_TAIL_BYTES).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def process_file(self, name: str, suffix: str) -> Path:
        """The file in .clearstory/ about a run's process: ".json" or ".log"."""
        folder = resolve_name(self.root, name)
        return self.root / ".clearstory" / f"{relative_name(self.root, folder).replace('/', '.')}{suffix}"


def check_run_name(name: str) -> str:
    """The stripped name. Raises BadSetting unless it is letters, digits and -_. of any language, as one folder name."""
    name = name.strip()
    letters = all(c.isalnum() or c in "-_." for c in name)
    if not name or name.startswith(".") or not letters or len(name.encode(errors="replace")) > 80:
        raise BadSetting(
            f"'{one_line(name, 100)}' is no valid name for a run; use letters, digits and - _ . such as book-1"
        )
    return name


def command_arguments(settings: Mapping[str, Any], command: RunCommand = "train") -> list[str]:
    """Settings as command-line arguments, those without a flag last."""
    arguments: list[str] = []
    positionals: dict[str, list[str]] = {name: [] for name in POSITIONALS[command]}
    for key, value in settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        if key in positionals:
            positionals[key] = [str(each) for each in values]
            continue
        arguments += [f"--{key}={str(each).lower() if isinstance(each, bool) else each}" for each in values]
    return [*arguments, "--", *chain.from_iterable(positionals.values())]


def read_config(folder: Path) -> dict[str, Any]:
    """A run's settings from config.yaml; empty if it cannot be read, or holds more than settings."""
    try:
        if not is_regular_file(folder / "config.yaml") or file_size(folder / "config.yaml") > MAX_CONFIG_BYTES:
            return {}
        config = read_yaml(folder / "config.yaml")
        check_values(config)  # YAML can repeat a value by reference until it fills any memory
    except (ClearstoryError, OSError, ValueError, RecursionError):
        return {}
    return config


def last_record(metrics: Path) -> dict[str, Any]:
    """The last complete record of a metrics file; empty if there is none."""
    lines = read_tail(metrics, 65_536).split(b"\n")
    return next((record for line in reversed(lines) if (record := parse_record(line))), {})


def was_stopped(message: str) -> bool:
    """Whether the last log line says that the run was stopped on request."""
    return "stopped at step" in message
