"""clearstory fill-mask: predicts the token at each [MASK] of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import FillMaskRecipe


def run(recipe: FillMaskRecipe, output: Output) -> Mapping[str, Any]:
    """Print each text with its masks filled, and the most probable tokens of each mask."""
    from clearstory.recipes.inference.fill_mask import fill_mask

    results = fill_mask(
        recipe.model,
        recipe.text,
        top=recipe.top,
        errors=recipe.errors,
        text_field=recipe.text_field,
        device=recipe.device,
    )
    if not output.json:
        for result in results:
            output.write(f"{result.filled}\n")
            for number, predictions in enumerate(result.masks, start=1):
                for rank, prediction in enumerate(predictions):
                    label = f"{number}." if rank == 0 and len(result.masks) > 1 else ""
                    output.write(f"{label:>4} {prediction.probability:7.2%}  {prediction.token}\n")
    return {**results[0].to_json(), "texts": [result.to_json() for result in results]}


COMMAND = Command(recipe=FillMaskRecipe, run=run, example='clearstory fill-mask runs/bert "The [MASK] sat on the mat."')
