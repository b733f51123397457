"""clearstory translate: what a model that has learnt from pairs makes of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import TranslateRecipe


def run(recipe: TranslateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Translate, a text a line."""
    from clearstory.cli.display import counting
    from clearstory.recipes.translate import translate

    with counting(talk, "translating") as count:
        made = translate(
            recipe.model,
            recipe.text,
            beam=recipe.beam,
            length_penalty=recipe.length_penalty,
            max_tokens=recipe.max_tokens,
            truncate=recipe.truncate,
            errors=recipe.errors,
            device=recipe.device,
            on_progress=count,
        )
    if not talk.json:
        for each in made.texts:
            talk.write(f"{each.text}\n")
    return made.to_json()


COMMAND = Command(
    recipe=TranslateRecipe, run=run, example='clearstory translate runs/en-de "Good morning." "How are you?"'
)
