"""Checks of the settings of fine-tuning that tasks translate and summarize have, or have not. Imports no torch."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from clearstory.errors import BadSetting
from clearstory.tasks.text_to_text_settings import TEXT_TO_TEXT_TASKS, SourceTruncation, TextToTextTask

if TYPE_CHECKING:
    from clearstory.recipes.settings.finetuning import FinetuneRecipe

TASKS: dict[str, TextToTextTask] = {"translate": "translate", "summarize": "summarize"}

SIDES: dict[str, SourceTruncation] = {"source-left": "source-left", "source-right": "source-right"}


def text_to_text_task(task: str) -> TextToTextTask | None:
    """The task, if it is one that generates a target for a source."""
    return TASKS.get(task)


def source_truncation(truncate: str | None) -> SourceTruncation | None:
    """Which end of a source is dropped; None for the truncation of other texts."""
    return SIDES.get(truncate or "")


def check_text_to_text_settings(recipe: FinetuneRecipe) -> None:
    """Raise BadSetting for settings of sources and targets with another task, and for those of labels with these."""
    tasks = " and ".join(TEXT_TO_TEXT_TASKS)
    if text_to_text_task(recipe.task) is None:
        sections = (recipe.text_to_text, recipe.distillation)
        changed = [each.name for own in sections for each in fields(own) if getattr(own, each.name) != each.default]
        if changed:
            raise BadSetting(f"{changed[0]} is for tasks {tasks}, but task is {recipe.task}; leave it out")
        if recipe.truncate in SIDES:
            raise BadSetting(
                f"truncate is {recipe.truncate}, but task {recipe.task} has no sources; give left or right"
            )
        if recipe.task not in ("chat", "lm", "choose") and len(recipe.validation) > 1:
            raise BadSetting(f"validation has {len(recipe.validation)} files; give one for task {recipe.task}")
        return
    if recipe.truncate is not None and recipe.truncate not in SIDES:
        raise BadSetting(
            f"truncate is {recipe.truncate}, but task {recipe.task} has a source and a target; give "
            f"{' or '.join(SIDES)}, which truncate only the source"
        )
    usual = type(recipe)()
    given = {
        "stride": recipe.stride is not None,
        "threshold": recipe.threshold != usual.threshold,
        "new_head": recipe.new_head,
        "training.class_weights": recipe.training.class_weights != usual.training.class_weights,
        "freeze": recipe.freeze == "all",
        "problem": recipe.reading.problem != usual.reading.problem,
        "trees": recipe.reading.trees != usual.reading.trees,
    }
    if name := next((name for name, is_given in given.items() if is_given), None):
        raise BadSetting(
            f"{name} is for labels, but task {recipe.task} trains a model that generates text; leave it out"
        )
