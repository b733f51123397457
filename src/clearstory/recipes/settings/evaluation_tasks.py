"""Settings of the evaluations that others define: tasks of lm-evaluation-harness, and probes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from clearstory.errors import BadSetting
from clearstory.recipes.settings.schema import check_output_folder

HARNESS = "lm-eval"
"""The name before the colon of a harness task: lm-eval:arc_easy."""

PROBES = "probes"
"""The task that runs all probes for which there are files."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Settings of the evaluations that others define.

    Args:
        task_files: folder with data for the tasks, TASK.jsonl or TASK/SPLIT.jsonl, and with YAML tasks of your own
            (task lm-eval).
        num_fewshot: number of examples before each question; default: the task's (task lm-eval).
        apply_chat_template: use contexts as messages in the model's chat template (task lm-eval).
        bootstrap_iters: bootstrap resamples for standard errors without a formula; 0: leave these out (task lm-eval).
        log_samples: save every request and its answer in the output folder (task lm-eval).
        download: allow the harness to download data that is not in task_files (task lm-eval).
        probe_files: folder with the data of the probes (task probes).
        out: output folder for the results as JSON (tasks lm-eval and probes).
    """

    task_files: Path | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    bootstrap_iters: int = 1000
    log_samples: bool = False
    download: bool = False
    probe_files: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        check_output_folder(self.out)
        for name in ("num_fewshot", "bootstrap_iters"):
            if (getattr(self, name) or 0) < 0:
                raise BadSetting(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.log_samples and self.out is None:
            raise BadSetting("log_samples needs an output folder; give one with --out")

    def check_used(self, task: str) -> None:
        """Raises BadSetting for a setting that a task does not use."""
        usual = BenchmarkSettings()
        used = {PROBES: {"probe_files", "out"}}
        for each in fields(self):
            mine = each.name != "probe_files" if task == HARNESS else each.name in used.get(task, set())
            if getattr(self, each.name) != getattr(usual, each.name) and not mine:
                owner = f"tasks {HARNESS} and {PROBES}" if each.name == "out" else f"task {HARNESS}"
                owner = f"task {PROBES}" if each.name == "probe_files" else owner
                raise BadSetting(f"{each.name} does not apply to task {task}, only to {owner}; leave it out")


def harness_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    """The names of harness tasks, from lm-eval:NAME,NAME; () where the task is another one.

    Raises BadSetting where one of them is named beside a task of another kind, and for an empty name.

    >>> harness_tasks(["lm-eval:arc_easy,piqa", "lm-eval:blimp"])
    ('arc_easy', 'piqa', 'blimp')
    """
    tasks = tuple(tasks)
    named = [task.partition(":")[2] for task in tasks if task.partition(":")[0] == HARNESS]
    if named and len(named) < len(tasks):
        raise BadSetting(f"task is {', '.join(tasks)}; give tasks of lm-eval by themselves")
    names = tuple(name.strip() for each in named for name in each.split(","))
    if not all(names):
        raise BadSetting(f"task is {', '.join(tasks)[:60]!r}; name the task after the colon, such as lm-eval:arc_easy")
    return names
