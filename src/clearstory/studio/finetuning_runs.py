"""Fine-tuning runs: what a run folder says of its task, its labels and its metrics, read from small files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.errors import BadSetting
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.studio.bounded_files import nested_value, read_json_or_empty, read_tail, text_or_none
from clearstory.studio.model_facts import RECORD_TAIL_BYTES, parse_record, positive_number

LANGUAGE_MODEL_RECORD = frozenset(
    {
        *("kind", "step", "tokens", "seconds", "cpu_seconds", "nats_per_token", "bits_per_byte", "unit", "train_nats"),
        "best",
    }
)
"""Keys of an evaluation's record that are no metrics of a task."""

ONE_RUN_SETTINGS = ("seeds", "curve")
"""Settings by which one command makes several runs."""


def is_finetuning(config: Mapping[str, Any]) -> bool:
    """Whether a config.yaml is that of `clearstory finetune`; --task lm writes one of `clearstory train`."""
    return "task" in config and "text" not in config


def check_finetuning(settings: Mapping[str, Any], folder: Path) -> FinetuneRecipe:
    """The recipe of these settings. Raises BadSetting without a model or data, and for several runs in one."""
    recipe = build_settings(FinetuneRecipe, {**settings, "out": str(folder)})
    if not recipe.model or not recipe.data:
        missing = "model" if not recipe.model else "data"
        raise BadSetting(f"{missing} is missing; name a model or a preset, and files with labeled examples")
    usual = FinetuneRecipe()
    for name in ONE_RUN_SETTINGS:
        if (value := getattr(recipe, name)) != getattr(usual, name):
            raise BadSetting(f"{name} is {value}, and a request starts one run; leave it out, and set training.seed")
    return recipe


def finetuning_status(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The task of a run, its labels, and its metrics: those of the latest evaluation, or of the best model once it is
    scored. `metric` is the first of them, which selects the best model.
    """
    metrics = reported_metrics(folder) or evaluated_metrics(folder)
    return {
        "task": text_or_none(config.get("task")),
        "labels": list(labels_of_model(folder / "model")),
        "metric": next(iter(metrics), None),
        "metrics": metrics,
    }


def reported_metrics(folder: Path) -> dict[str, float]:
    """The metrics of report.json on validation examples, else on test examples; none before the run has ended."""
    report = read_json_or_empty(folder / "report.json")
    found = nested_value(report, "validation", "metrics") or nested_value(report, "test", "metrics")
    return numbers_in(found) if isinstance(found, dict) else {}


def evaluated_metrics(folder: Path) -> dict[str, float]:
    """The metrics of a run's latest evaluation."""
    for line in reversed(read_tail(folder / "metrics.jsonl", RECORD_TAIL_BYTES).splitlines()):
        record = parse_record(line)
        if record.get("kind") == "evaluation":
            return task_metrics(record)
    return {}


def task_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a task in the record of an evaluation."""
    return numbers_in({name: value for name, value in record.items() if name not in LANGUAGE_MODEL_RECORD})


def numbers_in(values: Mapping[Any, Any]) -> dict[str, float]:
    """The values that are finite numbers, at most 50."""
    signed = {str(name): value for name, value in list(values.items())[:50] if is_number(value)}
    return {name[:100]: float(value) for name, value in signed.items()}


def is_number(value: Any) -> bool:
    """Whether a value of a foreign JSON file is a finite number."""
    return isinstance(value, int | float) and positive_number(abs(value)) is not None and not isinstance(value, bool)


def labels_of_model(model: Path) -> tuple[str, ...]:
    """The labels that a model folder or an adapter predicts, in the order of their ids; none without a head."""
    external = read_json_or_empty(model / "config.json")
    id2label = external.get("id2label")
    names: Any = nested_value(external, "model", "labels")
    if isinstance(id2label, dict) and head_task(external) is not None:
        names = list(id2label.values())
    if names is None:
        names = nested_value(read_json_or_empty(model / "clearstory.json"), "classifier", "labels")
    labels = (text_or_none(each, 100) for each in names[:MAX_LABELS]) if isinstance(names, list) else ()
    return tuple(each for each in labels if each is not None)


MAX_LABELS = 200
"""Labels of one model that are listed."""

HEAD_TASKS = {"ForSequenceClassification": "classify", "ForTokenClassification": "tag"}
"""From the end of a class name of transformers to the task of its head."""


def head_task(external: Mapping[str, Any]) -> str | None:
    """The task of the head that a config.json describes; None without one."""
    classes = external.get("architectures")
    name = str(classes[0]) if isinstance(classes, list) and classes else ""
    found = next((task for end, task in HEAD_TASKS.items() if name.endswith(end)), None)
    if found is None and nested_value(external, "model", "labels"):
        pooled = external.get("family") != "Classifier" or nested_value(external, "model", "pooling") is not None
        found = "classify" if pooled else "tag"
    return found


def model_task(model: Path) -> str | None:
    """The task of the head of a model folder or an adapter; None without one."""
    found = head_task(read_json_or_empty(model / "config.json"))
    kind = nested_value(read_json_or_empty(model / "adapter_config.json"), "task_type") if found is None else None
    return found or {"SEQ_CLS": "classify", "TOKEN_CLS": "tag"}.get(str(kind))
