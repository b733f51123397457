"""clearstory generate: let a model write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import GenerateRecipe


def run(recipe: GenerateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Write, token by token."""
    from clearstory.recipes.generate import generate

    streamed = not talk.json and recipe.sampling.beam == 1
    begun = False

    def show(piece: str) -> None:
        nonlocal begun
        # After the model is open: an error must not follow half a text.
        talk.write(piece if begun else recipe.prompt + piece)
        begun = True

    made = generate(
        recipe.model,
        recipe.prompt,
        recipe.sampling,
        truncate=recipe.truncate,
        ignore_eos=recipe.ignore_eos,
        int8=recipe.int8,
        device=recipe.device,
        on_text=(lambda piece: show(piece.text)) if streamed else None,
    )
    if streamed:
        talk.write("\n" if begun else recipe.prompt + "\n")
    elif not talk.json:
        for beam in made.completions:
            talk.write(f"{recipe.prompt}{beam.text}\n")
    if not talk.json and talk.aside.is_terminal:
        talk.aside.print(f"{made.tokens:,} tokens, {made.tokens_per_second:,.0f} a second", style="dim")
    return made.to_json()


COMMAND = Command(
    recipe=GenerateRecipe,
    run=run,
    example='clearstory generate runs/book "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1',
)
