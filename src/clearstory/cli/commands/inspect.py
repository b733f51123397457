"""clearstory inspect: see what happens between the text and the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import InspectRecipe


def run(recipe: InspectRecipe, talk: Talk) -> Mapping[str, Any]:
    """Look, and draw what was seen."""
    from clearstory.lens.draw import to_terminal
    from clearstory.recipes.inspect import inspect

    # What a view does not know it refuses, so only what was said is passed on.
    asked = ("model", "text", "view", "out", "device", "over", "against", "against_text")
    names = [field.name for field in fields(recipe) if field.name not in asked]
    own = {name: value for name in names if (value := getattr(recipe, name)) not in (None, ())}
    how = {name: getattr(recipe, name) for name in ("device", "over", "against", "against_text")}
    seen = inspect(recipe.model, recipe.text, recipe.view, recipe.out, **how, **own)
    if recipe.out is not None:
        talk.aside.print(f"written to {recipe.out}")
    elif not talk.json:
        talk.out.print(to_terminal(seen, talk.out.width))
    return seen.to_json()


COMMAND = Command(
    recipe=InspectRecipe, run=run, example='clearstory inspect runs/book "the king of" --view next --top 10'
)
