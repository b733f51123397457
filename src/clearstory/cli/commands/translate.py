"""clearstory translate: translates texts, or the lines of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.text_arguments import generate_for_texts
from clearstory.recipes.settings.translation import TranslateRecipe


def run(recipe: TranslateRecipe, output: Output) -> Mapping[str, Any] | None:
    """Print each translation on a line, or write them to a file."""
    from clearstory.recipes.inference.translate import translate

    return generate_for_texts(translate, recipe, output, "translating")


COMMAND = Command(
    recipe=TranslateRecipe,
    run=run,
    example='clearstory translate runs/en-de "Good morning." "How are you?"',
    further_examples=("clearstory translate runs/en-de letters.txt --out briefe.txt",),
)
