"""Evaluation by lm-evaluation-harness: its own tasks, prompts and metrics, on local files."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partialmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from clearstory.durable import replace_files
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, MissingExtra, UnknownName, nearest
from clearstory.recipes.inference.harness_files import find_task_files, with_task_files
from clearstory.recipes.inference.model_argument import ModelWithTokenizer
from clearstory.recipes.notebook_html import html_table
from clearstory.recipes.settings.evaluation_tasks import BenchmarkSettings

LOCAL_DATASETS = ("json", "csv", "text", "parquet", "arrow")
"""Data sets that `datasets` reads from files of the user's own."""

NORMAL = 1.96
"""Standard errors on each side of a 95 % interval."""


@dataclass(frozen=True)
class HarnessMetric:
    """One metric of a task: its value, and its standard error where the harness has one."""

    task: str
    metric: str
    value: float
    stderr: float | None
    examples: int | None
    filter: str = "none"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, by the normal distribution."""
        return None if self.stderr is None else (self.value - NORMAL * self.stderr, self.value + NORMAL * self.stderr)


@dataclass(frozen=True, kw_only=True)
class HarnessEvaluation:
    """Results of lm-evaluation-harness.

    Args:
        metrics: all metrics of all tasks and groups.
        results: everything that the harness returned, in its own form.
        seconds: time of the evaluation.
    """

    metrics: tuple[HarnessMetric, ...]
    results: Mapping[str, Any] = field(repr=False)
    seconds: float

    def _repr_html_(self) -> str:
        """The metrics as a table, for notebooks."""
        return html_table((f"{each.task} {each.metric}", f"{each.value:.4f}") for each in self.metrics)

    def to_json(self) -> dict[str, Any]:
        """The results in the harness's own form, without the samples."""
        kept = {name: value for name, value in self.results.items() if name != "samples"}
        return cast("dict[str, Any]", json.loads(json.dumps(kept, default=str)))


def evaluate_harness(
    model: str | Path | ModelWithTokenizer,
    tasks: Sequence[str],
    settings: BenchmarkSettings | None = None,
    *,
    limit: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> HarnessEvaluation:
    """The metrics of a model on tasks of lm-evaluation-harness, with at most `limit` examples of each.

    Raises MissingExtra without the harness, UnknownName for a task that it does not have, BadInput for one whose data
    is not among the user's files.
    """
    settings = settings or BenchmarkSettings()
    started = time.perf_counter()
    with offline(not settings.download):
        try:
            from lm_eval.evaluator import simple_evaluate

            from clearstory.recipes.inference.lm_eval_model import ClearstoryLM
        except ImportError as error:
            raise MissingExtra(
                f"tasks of lm-eval need {error.name or 'lm-eval'}; install it with: pip install 'clearstory[eval]'"
            ) from None
        manager = task_manager(tasks, settings)
        check_names(tasks, manager.all_tasks)
        network = ClearstoryLM(model, device=device, batch_size=batch_size, on_progress=on_progress)
        results = simple_evaluate(
            network,
            tasks=list(tasks),
            num_fewshot=settings.num_fewshot,
            limit=limit,
            bootstrap_iters=settings.bootstrap_iters,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=settings.apply_chat_template,
            log_samples=settings.log_samples,
            task_manager=manager,
        )
    results = dict(results)
    results["config"]["model"] = network.name
    evaluation = HarnessEvaluation(
        metrics=tuple(iter_metrics(results)), results=results, seconds=time.perf_counter() - started
    )
    if settings.out is not None:
        write_results(evaluation, expand_home(settings.out))
    return evaluation


@contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """A block in which the harness's libraries fetch nothing, if `wanted`, and print errors only."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE") if wanted else ()
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with without_progress_bars(), without_git_errors():
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Context manager that disables progress bars of `tqdm`, for most of which the harness has no setting."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield
        return
    draw: Any = tqdm.__init__
    tqdm.__init__ = partialmethod(draw, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = draw


@contextmanager
def without_git_errors() -> Iterator[None]:
    """Context manager in which the harness does not ask git for a commit outside a repository, where git prints an
    error.
    """
    here = Path.cwd()
    if find_spec("lm_eval") is None or any((each / ".git").exists() for each in (here, *here.parents)):
        yield
        return
    from lm_eval import evaluator

    ask = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = ask


def task_manager(tasks: Sequence[str], settings: BenchmarkSettings) -> Any:
    """The harness's own and the user's tasks, with the data of the user's files. Raises BadInput for no such folder."""
    from lm_eval.tasks import TaskManager

    folder = None if settings.task_files is None else expand_home(settings.task_files)
    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one with TASK.jsonl or TASK/SPLIT.jsonl for each task")
    folders = task_folders(tasks, folder)
    include = [*map(str, folders or ()), *([] if folder is None else [str(folder)])]
    manager = TaskManager(include_path=include, include_defaults=folders is None)
    factory = manager._factory
    load = factory._load_full_config

    def load_with_files(entry: Any, overrides: Any = None) -> dict[str, Any]:
        """A task's config, with a function that reads its data from the user's files."""
        config: dict[str, Any] = load(entry, overrides)
        name = config.get("task")
        if not isinstance(name, str) or "class" in config:
            return config
        if files := {} if folder is None else find_task_files(folder, name):
            return with_task_files(config, files, settings.num_fewshot)
        dataset = str(config.get("dataset_path", ""))
        local = config.get("custom_dataset") or dataset in LOCAL_DATASETS or Path(dataset).exists()
        if not local and not settings.download:
            where = "a folder named with --task-files" if folder is None else str(folder)
            raise BadInput(
                f"task {name} needs the data set {dataset}, which is not among your files; put {name}.jsonl into "
                f"{where}, or pass --download to let lm-eval download it"
            )
        return config

    factory._load_full_config = load_with_files
    return manager


def task_folders(tasks: Sequence[str], own: Path | None) -> list[Path] | None:
    """The folders of the harness in which these tasks and groups, and those that they consist of, are defined; not for
    those that the user's `own` folder defines.

    Reading all of its 14,000 tasks takes half a minute. None if a name is not found, as that of a tag.
    """
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(lm_eval.tasks.__file__).parent
    mine = {} if own is None else files_of_tasks(own)
    files = {**files_of_harness(root), **mine}
    folders: dict[Path, None] = {}
    waiting, seen = list(tasks), set()
    while waiting:
        name = waiting.pop()
        if name in seen or Path(name).is_file():
            continue
        seen.add(name)
        if name not in files:
            return None
        if name not in mine:
            folders[root / files[name].relative_to(root).parts[0]] = None
        members = load_yaml(files[name], resolve_func=False).get("task")
        for member in members if isinstance(members, list) else ():
            waiting.append(member if isinstance(member, str) else str(member.get("task", member.get("group"))))
    return list(folders)


@cache
def files_of_harness(root: Path) -> Mapping[str, Path]:
    """`files_of_tasks` of the harness, which do not change."""
    return files_of_tasks(root)


def files_of_tasks(root: Path) -> Mapping[str, Path]:
    """The YAML file that defines each task and group of a folder, by its name."""
    files: dict[str, Path] = {}
    for path in sorted(root.glob("**/*.yaml")):
        if found := DEFINED.search(path.read_bytes()):
            files.setdefault(found[1].decode(), path)
    return files


DEFINED = re.compile(rb"^(?:task|group):[ \t]*[\"']?([\w.+:-]+)", re.MULTILINE)
"""The line of a YAML file that names its task or group."""


def check_names(tasks: Sequence[str], known: Sequence[str]) -> None:
    """Raises UnknownName, with the nearest names, for a task that the harness does not have."""
    for name in tasks:
        if name not in known and not Path(name).is_file():
            from difflib import get_close_matches

            close = get_close_matches(name, known, n=5, cutoff=0.5)
            close += [each for each in known if name.lower() in each.lower() and each not in close][:3]
            hint = f"did you mean {', '.join(close)}?" if close else nearest(name, known[:20])
            raise UnknownName(f"lm-eval has no task called '{name[:60]}'; {hint}")


def iter_metrics(results: Mapping[str, Any]) -> Iterator[HarnessMetric]:
    """The metrics in the harness's results, groups after their tasks."""
    counts = results.get("n-samples", {})
    for task, values in {**results.get("results", {}), **results.get("groups", {})}.items():
        for key, value in values.items():
            metric, separator, name = key.partition(",")
            if not separator or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}_stderr,{name}")
            stderr = float(stderr) if isinstance(stderr, int | float) else None
            yield HarnessMetric(task, metric, float(value), stderr, counts.get(task, {}).get("effective"), name)


def write_results(evaluation: HarnessEvaluation, folder: Path) -> None:
    """Write results.json, and a samples_TASK.jsonl for each task whose samples were kept."""
    if folder.is_file():
        raise BadSetting(f"out is {folder}, which is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"results.json": json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False) + "\n"}
    for task, samples in evaluation.results.get("samples", {}).items():
        lines = (json.dumps(sample, default=str, ensure_ascii=False) for sample in samples)
        contents[f"samples_{task}.jsonl"] = "".join(f"{line}\n" for line in lines)
    replace_files(folder, {name: text.encode() for name, text in contents.items()})
