"""clearstory translate: translates texts with an encoder-decoder model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import TranslateRecipe


def run(recipe: TranslateRecipe, output: Output) -> Mapping[str, Any]:
    """Print each translation on a line."""
    from clearstory.cli.training_display import progress_bar
    from clearstory.recipes.inference.translate import translate

    with progress_bar(output, "translating") as on_progress:
        translation = translate(
            recipe.model,
            recipe.text,
            beam=recipe.beam,
            length_penalty=recipe.length_penalty,
            max_tokens=recipe.max_tokens,
            truncate=recipe.truncate,
            errors=recipe.errors,
            precision=recipe.precision,
            int8=recipe.int8,
            device=recipe.device,
            on_progress=on_progress,
        )
    if not output.json:
        for each in translation.texts:
            output.write(f"{each.text}\n")
    return translation.to_json()


COMMAND = Command(
    recipe=TranslateRecipe, run=run, example='clearstory translate runs/en-de "Good morning." "How are you?"'
)
