"""clearstory evaluate: measure a model in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import EvaluateRecipe


def run(recipe: EvaluateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Measure, and print the numbers."""
    from clearstory.cli.display import clock, counting
    from clearstory.recipes.evaluate import evaluate
    from clearstory.text.settings import DataSettings

    with counting(talk, "measuring") as told:
        found = evaluate(
            recipe.model,
            recipe.text,
            windows=recipe.windows,
            stride=recipe.stride,
            batch_size=recipe.batch_size,
            limit=recipe.limit,
            data=DataSettings(text_field=recipe.text_field, errors=recipe.errors),
            int8=recipe.int8,
            device=recipe.device,
            on_progress=told,
        )
    if not talk.json:
        score = found.score
        per_byte = f"{score.reason}" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f} bits per byte"
        talk.out.print(f"{per_byte} ({score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:,.2f})")
        read = "read whole" if found.context is None else f"{found.windows} windows of {found.context:,}"
        if found.windows == "strided":
            read += f", {found.stride:,} apart"
        documents = f"{found.documents:,} document{'s' * (found.documents != 1)}"
        talk.out.print(f"{score.tokens:,} tokens of {documents} in {clock(found.seconds)}; {read}")
    return found.to_json()


COMMAND = Command(recipe=EvaluateRecipe, run=run, example="clearstory evaluate runs/book another-book.txt")
