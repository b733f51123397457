"""clearstory inspect: shows what a model computes between a text and its prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import InspectRecipe


def run(recipe: InspectRecipe, output: Output) -> Mapping[str, Any]:
    """Look, and draw what was seen."""
    from clearstory.lens.rendering.terminal import render_terminal
    from clearstory.recipes.inference.inspect import inspect

    # What a view does not know it refuses, so only what was said is passed on.
    asked = ("model", "text", "view", "out", "device", "across_checkpoints", "compare_model", "compare_text")
    names = [field.name for field in fields(recipe) if field.name not in asked]
    own = {name: value for name in names if (value := getattr(recipe, name)) not in (None, ())}
    how = {name: getattr(recipe, name) for name in ("device", "across_checkpoints", "compare_model", "compare_text")}
    seen = inspect(recipe.model, recipe.text, recipe.view, recipe.out, **how, **own)
    if recipe.out is not None:
        output.stderr.print(f"written to {recipe.out}")
    elif not output.json:
        output.console.print(render_terminal(seen, output.console.width))
    return seen.to_json()


COMMAND = Command(
    recipe=InspectRecipe, run=run, example='clearstory inspect runs/book "the king of" --view next-token --top 10'
)
