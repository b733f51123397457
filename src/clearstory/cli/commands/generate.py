"""clearstory generate: generates text from a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import GenerateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.inference.generate import TextChunk


def run(recipe: GenerateRecipe, output: Output) -> Mapping[str, Any]:
    """Write, token by token."""
    from clearstory.recipes.inference.generate import generate

    streamed = not output.json and recipe.sampling.beam == 1
    begun = False

    def show(piece: TextChunk) -> None:
        nonlocal begun
        # After the model is open: an error must not follow half a text.
        output.write(piece.text if begun or not piece.continues_prompt else recipe.prompt + piece.text)
        begun = True

    made = generate(
        recipe.model,
        recipe.prompt,
        recipe.sampling,
        truncate=recipe.truncate,
        ignore_eos=recipe.ignore_eos,
        int8=recipe.int8,
        device=recipe.device,
        on_text=show if streamed else None,
    )
    before = recipe.prompt if made.completions[0].continues_prompt else ""
    if streamed:
        output.write("\n" if begun else before + "\n")
    elif not output.json:
        for beam in made.completions:
            output.write(f"{before}{beam.text}\n")
    if not output.json and output.stderr.is_terminal:
        output.stderr.print(f"{made.tokens:,} tokens, {made.tokens_per_second:,.0f} a second", style="dim")
    return made.to_json()


COMMAND = Command(
    recipe=GenerateRecipe,
    run=run,
    example='clearstory generate runs/book "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1',
)
