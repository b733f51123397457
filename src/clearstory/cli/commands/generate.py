"""clearstory generate: let a model write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import GenerateRecipe


def run(recipe: GenerateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Write, token by token."""
    from clearstory.recipes.generate import generate

    raise NotImplementedError(generate)


COMMAND = Command(
    recipe=GenerateRecipe,
    run=run,
    example='clearstory generate runs/book "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1',
)
