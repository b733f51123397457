"""clearstory finetune: fine-tunes a model for a task with labeled examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.finetuning import FinetuneRecipe


def run(recipe: FinetuneRecipe, output: Output) -> Mapping[str, Any]:
    """Fine-tune with each seed, printing progress, and print a summary."""
    from clearstory.cli.training_display import show_training, training_summary
    from clearstory.recipes.finetuning.loop import finetune_events, recipes_of_seeds, summarize_seeds

    results = []
    for each in recipes_of_seeds(recipe):
        results.append(show_training(finetune_events(each), output))
        if not output.json:
            output.console.print(training_summary(results[-1]))
    result = summarize_seeds(recipe, results)
    if not output.json and len(results) > 1:
        for name, mean in result.metrics.items():
            low, high = result.intervals[name]
            title = f"{name.replace('_', ' ')} of {len(results)} seeds"
            output.console.print(f"{title}: mean {mean:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    return result.to_json()


COMMAND = Command(
    recipe=FinetuneRecipe,
    run=run,
    example="clearstory finetune models/minilm reviews.csv --task classify --out runs/reviews",
    common=(
        "training.num_train_epochs",
        "training.batch_size",
        "training.learning_rate",
        "training.patience",
        "training.device",
        "training.threads",
        "training.seed",
        "lora.rank",
    ),
)
