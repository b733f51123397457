"""clearstory tag: predicts the tag of each word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.text_arguments import given_texts, reading_arguments
from clearstory.recipes.settings.inference import TagRecipe


def run(recipe: TagRecipe, output: Output) -> Mapping[str, Any]:
    """Print a word and its tag on each line, with a blank line after each sentence."""
    from clearstory.recipes.inference.tag import conll_text, tag, write_tags

    tagged = tag(recipe.model, given_texts(recipe), **reading_arguments(recipe))
    if recipe.out is not None:
        write_tags(recipe.out, tagged)
        return {"out": str(recipe.out), "count": len(tagged.words)}
    if not output.json:
        output.write(conll_text(tagged))
    return tagged.to_json()


COMMAND = Command(recipe=TagRecipe, run=run, example='clearstory tag runs/tagger "The horse raced past the barn ."')
