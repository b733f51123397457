"""clearstory classify: the label of each text, or of each of its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import ClassifyRecipe


def run(recipe: ClassifyRecipe, talk: Talk) -> Mapping[str, Any]:
    """Read, and print each text with the chances of its labels, or a word and its label a line."""
    from clearstory.recipes.classify import classify

    found = classify(
        recipe.model,
        [*recipe.text, *([] if recipe.input is None else [recipe.input])],
        truncate=recipe.truncate,
        batch_size=recipe.batch_size,
        errors=recipe.errors,
        text_field=recipe.text_field,
        device=recipe.device,
    )
    if not talk.json:
        for each in found:
            lines = [f"{each.text}\n"] if each.labels else []
            lines += [f"{chance.probability:9.2%}  {chance.label}\n" for chance in each.labels]
            lines += [f"{word.word}\t{word.label or ''}\n" for word in each.words] + ["\n"] * bool(each.words)
            talk.write("".join(lines))
    return {**found[0].to_json(), "texts": [each.to_json() for each in found]}


COMMAND = Command(recipe=ClassifyRecipe, run=run, example='clearstory classify moods "What a fine day!"')
