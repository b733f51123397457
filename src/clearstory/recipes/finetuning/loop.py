"""Fine-tuning as a generator of events: the training loop on a task, for one seed or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clearstory.recipes.finetuning.preparation import prepare_finetuning
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.training.events import TrainingEvent
from clearstory.recipes.training.loop import run_events
from clearstory.recipes.training.run_folder import changed_results, lock_run_folder, open_run_folder
from clearstory.recipes.training.time_budget import TimeBudget


def finetune_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of a fine-tuning run with one seed; the last one is its TrainingResult.

    Ctrl-C (or SIGTERM) saves a checkpoint and raises KeyboardInterrupt. A loss that is not finite saves a checkpoint of
    the last finite weights and raises Diverged.
    """
    budget = TimeBudget(float("inf"))
    with lock_run_folder(recipe) as (recipe, note):
        folder, recipe = open_run_folder(recipe)
        notes = [each for each in (note, changed_results(folder) if recipe.resume else None) if each is not None]
        yield from run_events(folder, recipe, budget, prepare_finetuning, notes=notes)


def recipes_of_seeds(recipe: FinetuneRecipe) -> list[FinetuneRecipe]:
    """A recipe for each seed, in folders seed-0, seed-1 ... of the run folder; the recipe itself for one seed."""
    if recipe.seeds == 1:
        return [recipe]
    first, out = recipe.training.seed, recipe.out or Path("runs") / recipe.default_name
    return [
        replace(recipe, seeds=1, out=out / f"seed-{seed}", training=replace(recipe.training, seed=seed))
        for seed in range(first, first + recipe.seeds)
    ]
