"""clearstory inspect: shows intermediate results of a model between a text and its prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import InspectRecipe

COMMON_SETTINGS = ("device", "across_checkpoints", "compare_model", "compare_text")
"""Settings that all views have, besides model, text, view and out."""


def run(recipe: InspectRecipe, output: Output) -> Mapping[str, Any]:
    """Compute a view and print it, or write it to a file."""
    from clearstory.lens.rendering.dispatch import render_terminal
    from clearstory.recipes.inference.inspect import inspect

    common = {name: getattr(recipe, name) for name in COMMON_SETTINGS} | vars(recipe.prompting)
    # A view refuses settings that it does not have, so only those that were given are passed.
    passed = {"model", "text", "prompting", "view", "out", *COMMON_SETTINGS}
    names = [each.name for each in fields(recipe) if each.name not in passed]
    settings = {name: value for name in names if (value := getattr(recipe, name)) not in (None, ())}
    view = inspect(recipe.model, recipe.text, recipe.view, recipe.out, **common, **settings)
    if recipe.out is not None:
        output.stderr.print(f"written to {recipe.out}")
    elif not output.json:
        output.console.print(render_terminal(view, output.console.width))
    return view.to_json()


COMMAND = Command(
    recipe=InspectRecipe,
    run=run,
    further_examples=(
        'clearstory inspect runs/book "the king of" --view head --out head.html',
        'clearstory inspect MODEL "The model wore a dress." --view contextual-embeddings --word model '
        '--other-text "The model predicts a word."',
    ),
    example='clearstory inspect runs/book "the king of" --view next-token --top 10',
)
