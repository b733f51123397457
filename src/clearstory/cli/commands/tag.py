"""clearstory tag: the tags of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import TagRecipe


def run(recipe: TagRecipe, talk: Talk) -> Mapping[str, Any]:
    """Tag, and print a word and its tag a line, sentences apart."""
    from clearstory.recipes.tagging import tag

    found = tag(recipe.model, recipe.text, errors=recipe.errors)
    if not talk.json:
        for words, tags in zip(found.words, found.tags, strict=True):
            talk.write("".join(f"{word}\t{each}\n" for word, each in zip(words, tags, strict=True)) + "\n")
    return found.to_json()


COMMAND = Command(recipe=TagRecipe, run=run, example='clearstory tag runs/tagger "The horse raced past the barn ."')
