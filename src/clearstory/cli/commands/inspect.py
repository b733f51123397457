"""clearstory inspect: see what happens between the text and the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import InspectRecipe


def run(recipe: InspectRecipe, talk: Talk) -> Mapping[str, Any]:
    """Look, and draw what was seen."""
    from clearstory.recipes.inspect import inspect

    raise NotImplementedError(inspect)


COMMAND = Command(
    recipe=InspectRecipe, run=run, example='clearstory inspect runs/book "the king of" --view attention --out look.html'
)
