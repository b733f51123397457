"""clearstory quickstart: trains a small model on a built-in corpus and shows results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.training import QuickstartRecipe


def run(recipe: QuickstartRecipe, output: Output) -> Mapping[str, Any]:
    """Train, then print examples of the model's output."""
    from clearstory.cli.training_display import show_training, training_summary
    from clearstory.recipes.training.quickstart import build_tour, quickstart_events

    result = show_training(quickstart_events(recipe), output)
    output.console.print(training_summary(result))
    shown = build_tour(result, seed=recipe.seed)
    for part in shown:
        output.console.print(f"\n{part.title}\n{part.text}")
    return {**asdict(result), "tour": {part.title: part.text for part in shown}}


COMMAND = Command(recipe=QuickstartRecipe, run=run, example="clearstory quickstart --minutes 3")
