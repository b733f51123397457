"""Baselines: models without a training loop (a bag of words, an HMM of tags), fitted to the training examples in one
pass and scored as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clearstory import durable
from clearstory.errors import BadSetting
from clearstory.recipes.finetuning.preparation import read_data
from clearstory.recipes.finetuning.report_page import report_html
from clearstory.recipes.settings.finetuning import BAG_OF_WORDS, HMM_TAGGER, NGRAM_CLASSIFIER, FinetuneRecipe
from clearstory.recipes.settings.yaml_files import to_yaml
from clearstory.recipes.training.events import TrainingEvent, TrainingNote, TrainingResult
from clearstory.recipes.training.run_folder import lock_run_folder, open_run_folder
from clearstory.tasks.data.examples import DataSplits, LabeledData
from clearstory.tasks.evaluation import TaskEvaluation

ALLOWED = ("model", "data", "task", "out", "validation", "test", "reading", "few", "seeds", "overwrite", "training")
"""Settings of a baseline; of training those that `check_settings` is given."""

BASELINES = {"classify": f"{BAG_OF_WORDS} or {NGRAM_CLASSIFIER}", "tag": HMM_TAGGER}
"""The baselines of each task that has any."""


@dataclass(frozen=True)
class FittedBaseline:
    """A fitted model.

    Args:
        summary: description in one phrase.
        parameters: number of parameters.
        evaluate: returns its scores on examples.
        save: writes it to a model folder; None for a model that is not saved.
        next_command: a command to try next; {run} is the run folder.
    """

    summary: str
    parameters: int
    evaluate: Callable[[LabeledData[Any]], TaskEvaluation]
    save: Callable[[Path], Path] | None
    next_command: str


def baseline_events(
    recipe: FinetuneRecipe, fit: Callable[[FinetuneRecipe, DataSplits[Any]], FittedBaseline]
) -> Iterator[TrainingEvent]:
    """Events of fitting a baseline: notes on the data, and its TrainingResult."""
    from clearstory.recipes.finetuning.loop import with_scores

    started, cpu_started = time.monotonic(), time.process_time()
    with lock_run_folder(recipe) as (recipe, note):
        folder, recipe = open_run_folder(recipe)
        data = read_data(recipe, None)
        for sentence in filter(None, (note, *data.train.notes, *data.notes)):
            yield TrainingNote(message=sentence)
        fitted = fit(recipe, data)
        parts = {"validation": data.validation, "test": data.test}
        scores = {name: fitted.evaluate(part) for name, part in parts.items() if part is not None and part.examples}
        if recipe.overwrite:
            folder.clear()
        durable.write_text(folder.config_file, to_yaml(recipe.with_absolute_paths()))
        durable.write_json(folder.path / "report.json", {name: each.to_json() for name, each in scores.items()})
        title = f"{folder.path.name}: {recipe.task}, {fitted.summary}"
        durable.write_text(folder.path / "report.html", report_html(title, scores, folder.metrics_file))
        result = TrainingResult(
            folder=folder.path if fitted.save is None else fitted.save(folder.model_folder),
            run_folder=folder.path,
            bits_per_byte=None,
            nats_per_token=None,
            cpu_seconds=time.process_time() - cpu_started,
            seconds=time.monotonic() - started,
            tokens=0,
            steps=0,
            parameters=fitted.parameters,
            curve=None,
            objective=recipe.task,
            metrics=scores["validation"].metrics if "validation" in scores else {},
            next_command=fitted.next_command.format(run=folder.path),
        )
        yield with_scores(result, scores)


def check_settings(
    recipe: FinetuneRecipe, task: str, why: str, *, training: Sequence[str] = (), others: Sequence[str] = ()
) -> None:
    """Raise BadSetting for another task, and for a setting that only networks have; `why` says what the model is,
    `training` are the settings of training that it has beside the seed, `others` those beside ALLOWED.
    """
    usual, allowed = FinetuneRecipe(), (*ALLOWED, *others)
    changed = [name for name in vars(recipe) if name not in allowed and getattr(recipe, name) != getattr(usual, name)]
    same = {name: getattr(usual.training, name) for name in ("seed", *training)}
    if not changed and replace(recipe.training, **same) != usual.training:
        changed = ["training"]
    if recipe.task != task:
        baselines = f"; of task {recipe.task} the baseline is {other}" if (other := BASELINES.get(recipe.task)) else ""
        raise BadSetting(f"task is {recipe.task}, and {recipe.model}, {why}, is for task {task}{baselines}")
    if changed:
        have = " and ".join(f"training.{name}" for name in ("seed", *training))
        raise BadSetting(f"{changed[0]} does not apply to {recipe.model}, {why}; it has {have}")
