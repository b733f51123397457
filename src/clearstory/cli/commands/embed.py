"""clearstory embed: a vector for each text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import EmbedRecipe


def run(recipe: EmbedRecipe, talk: Talk) -> Mapping[str, Any]:
    """Read, and print each text with its vector as a line of JSON."""
    from clearstory.recipes.embed import embed

    found = embed(
        recipe.model,
        recipe.text,
        pooling=recipe.pooling,
        normalize=recipe.normalize,
        truncate=recipe.truncate,
        batch_size=recipe.batch_size,
        errors=recipe.errors,
        text_field=recipe.text_field,
        device=recipe.device,
    )
    if not talk.json:
        for text, vector in zip(found.texts, found.vectors.tolist(), strict=True):
            talk.write(json.dumps({"text": text, "vector": vector}, ensure_ascii=False) + "\n")
    return found.to_json()


COMMAND = Command(recipe=EmbedRecipe, run=run, example='clearstory embed runs/bert "A cat sat on the mat." --normalize')
