"""clearstory train: from text to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe


def run(recipe: TrainRecipe, talk: Talk) -> Mapping[str, Any]:
    """Train, drawing what happens."""
    from clearstory.cli.training_display import show, summary
    from clearstory.recipes.training.loop import train_events

    finished = show(train_events(recipe), talk)
    if not talk.json:
        talk.out.print(summary(finished))
    return asdict(finished)


COMMAND = Command(
    recipe=TrainRecipe,
    run=run,
    build=build_train_recipe,
    example="clearstory train book.txt --model clear --minutes 3 --out runs/book --training.seed 1",
)
