"""clearstory train: trains a language model on text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe


def run(recipe: TrainRecipe, output: Output) -> Mapping[str, Any]:
    """Train, printing progress, and print a summary."""
    from clearstory.cli.reading_display import reading_progress
    from clearstory.cli.training_display import show_training, training_summary
    from clearstory.recipes.training.loop import train_events

    with reading_progress(output):
        result = show_training(train_events(recipe), output)
    if not output.json:
        output.console.print(training_summary(result))
    return asdict(result)


COMMAND = Command(
    recipe=TrainRecipe,
    run=run,
    build=build_train_recipe,
    example="clearstory train book.txt --model clear --minutes 3 --out runs/book --training.seed 1",
    common=(
        "training.batch_size",
        "training.context",
        "training.learning_rate",
        "training.device",
        "training.threads",
        "training.seed",
        "training.sample_steps",
        "lora.rank",
        "data.text_field",
        "data.lines",
        "data.validation",
        "data.pairs",
    ),
)
