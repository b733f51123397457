"""clearstory generate: generates text from a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import GenerateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.inference.generate import TextChunk


def run(recipe: GenerateRecipe, output: Output) -> Mapping[str, Any]:
    """Generate, printing text as it becomes final, or all beams at the end."""
    from clearstory.recipes.inference.generate import generate

    is_streamed = not output.json and recipe.sampling.beam == 1
    has_started = False

    def print_chunk(chunk: TextChunk) -> None:
        nonlocal has_started
        # The prompt is printed with the first chunk, so that no error message follows half a text.
        output.write(chunk.text if has_started or not chunk.continues_prompt else recipe.prompt + chunk.text)
        has_started = True

    generation = generate(
        recipe.model,
        recipe.prompt,
        recipe.sampling,
        truncate=recipe.truncate,
        ignore_eos=recipe.ignore_eos,
        int8=recipe.int8,
        device=recipe.device,
        on_text=print_chunk if is_streamed else None,
    )
    prompt = recipe.prompt if generation.completions[0].continues_prompt else ""
    if is_streamed:
        output.write("\n" if has_started else prompt + "\n")
    elif not output.json:
        for completion in generation.completions:
            output.write(f"{prompt}{completion.text}\n")
    if not output.json and output.stderr.is_terminal:
        output.stderr.print(
            f"{generation.tokens:,} tokens, {generation.tokens_per_second:,.0f} tokens per second", style="dim"
        )
    return generation.to_json()


COMMAND = Command(
    recipe=GenerateRecipe,
    run=run,
    example='clearstory generate runs/book "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1',
)
