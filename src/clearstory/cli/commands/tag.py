"""clearstory tag: predicts the tag of each word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import TagRecipe


def run(recipe: TagRecipe, output: Output) -> Mapping[str, Any]:
    """Print a word and its tag on each line, with a blank line after each sentence."""
    from clearstory.recipes.inference.tag import tag

    tagged = tag(recipe.model, recipe.text, errors=recipe.errors)
    if not output.json:
        for words, tags in zip(tagged.words, tagged.tags, strict=True):
            output.write("".join(f"{word}\t{each}\n" for word, each in zip(words, tags, strict=True)) + "\n")
    return tagged.to_json()


COMMAND = Command(recipe=TagRecipe, run=run, example='clearstory tag runs/tagger "The horse raced past the barn ."')
