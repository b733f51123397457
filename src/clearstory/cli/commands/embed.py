"""clearstory embed: computes an embedding vector for each text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import EmbedRecipe


def run(recipe: EmbedRecipe, output: Output) -> Mapping[str, Any]:
    """Print each text with its vector, one line of JSON for each."""
    from clearstory.recipes.inference.embed import embed

    embeddings = embed(
        recipe.model,
        recipe.text,
        pooling=recipe.pooling,
        prompt=recipe.prompt,
        normalize=recipe.normalize,
        truncate=recipe.truncate,
        batch_size=recipe.batch_size,
        errors=recipe.errors,
        text_field=recipe.text_field,
        device=recipe.device,
    )
    if embeddings.note:
        output.stderr.print(embeddings.note)
    if not output.json:
        for text, vector in zip(embeddings.texts, embeddings.vectors.tolist(), strict=True):
            output.write(json.dumps({"text": text, "vector": vector}, ensure_ascii=False) + "\n")
    return embeddings.to_json()


COMMAND = Command(recipe=EmbedRecipe, run=run, example='clearstory embed runs/bert "A cat sat on the mat." --normalize')
