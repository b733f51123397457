"""clearstory fill-mask: what may stand at a [MASK]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import FillMaskRecipe


def run(recipe: FillMaskRecipe, output: Output) -> Mapping[str, Any]:
    """Tell every mask, and print the likeliest tokens of each."""
    from clearstory.recipes.inference.fill_mask import fill_mask

    found = fill_mask(
        recipe.model,
        recipe.text,
        top=recipe.top,
        errors=recipe.errors,
        text_field=recipe.text_field,
        device=recipe.device,
    )
    if not output.json:
        for each in found:
            output.write(f"{each.filled}\n")
            for number, guesses in enumerate(each.masks, start=1):
                for place, guess in enumerate(guesses):
                    mask = f"{number}." if place == 0 and len(each.masks) > 1 else ""
                    output.write(f"{mask:>4} {guess.probability:7.2%}  {guess.token}\n")
    return {**found[0].to_json(), "texts": [each.to_json() for each in found]}


COMMAND = Command(recipe=FillMaskRecipe, run=run, example='clearstory fill-mask runs/bert "The [MASK] sat on the mat."')
