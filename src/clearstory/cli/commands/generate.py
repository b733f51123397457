"""clearstory generate: generates text from a prompt, or from many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.cli.standard_input import STANDARD_INPUT, has_piped_input, read_standard_input
from clearstory.errors import BadSetting
from clearstory.recipes.settings.inference import GenerateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.inference.completion import Completion, TextChunk


def run(recipe: GenerateRecipe, output: Output) -> Mapping[str, Any]:
    """Generate, printing the text of one prompt as it becomes final, all others at the end."""
    from clearstory.recipes.inference.generate import generate

    prompts = read_prompts(recipe)
    is_streamed = not output.json and len(prompts) == 1
    has_started = False

    def print_chunk(chunk: TextChunk) -> None:
        nonlocal has_started
        # The prompt is printed with the first chunk, so that no error message follows half a text.
        output.write(chunk.text if has_started or not chunk.continues_prompt else prompts[0] + chunk.text)
        has_started = True

    generation = generate(
        recipe.model,
        prompts,
        raw=recipe.prompting.raw,
        system=recipe.prompting.system,
        special_tokens=recipe.prompting.special_tokens,
        truncate=recipe.truncate,
        ignore_eos=recipe.ignore_eos,
        json_schema=recipe.json_schema,
        regex=recipe.regex,
        precision=recipe.precision,
        int8=recipe.int8,
        device=recipe.device,
        on_text=print_chunk if is_streamed else None,
        on_note=lambda note: output.stderr.print(f"note: {note}", style="dim"),
        **recipe.sampling.given(),
    )
    if has_started:
        output.write("\n")
    elif not output.json:
        for completion in generation.completions:
            output.write(as_block(completion, len(prompts)))
    if not output.json and output.console.is_terminal:
        print_images(generation.completions, output)
    if not output.json and output.stderr.is_terminal:
        output.stderr.print(
            f"{generation.tokens:,} tokens, {generation.tokens_per_second:,.0f} tokens per second", style="dim"
        )
    return generation.to_json()


def print_images(completions: Sequence[Completion], output: Output) -> None:
    """Print the texts that are images, as those of a model of corpus:digits, in rows of pixels."""
    from clearstory.text.digit_images import image_rows

    for completion in completions:
        if image := image_rows(completion.prompt + completion.text):
            output.write(f"\n{image}\n")


def as_block(completion: Completion, n_prompts: int) -> str:
    """A completion as it is printed: after its prompt where it continues it or answers one of several messages."""
    before = completion.prompt if completion.continues_prompt else ""
    if completion.chat and n_prompts > 1:
        before = f"> {completion.prompt}\n"
    return f"{before}{completion.text}\n"


def read_prompts(recipe: GenerateRecipe) -> list[str]:
    """The prompts of a command line: the one on it, those of a file, or what standard input holds."""
    if recipe.prompts_file is None:
        return [recipe.prompt or (read_standard_input() if has_piped_input() else "")]
    if recipe.prompt:
        raise BadSetting("both a prompt and --prompts-file are given; leave one of them out")
    if str(recipe.prompts_file) == STANDARD_INPUT:
        lines = (line.removesuffix("\r") for line in read_standard_input().split("\n"))
        return [line for line in lines if line.strip()]
    from clearstory.recipes.inference.text_inputs import read_texts

    return read_texts(recipe.prompts_file, text_field=recipe.text_field)


COMMAND = Command(
    recipe=GenerateRecipe,
    run=run,
    example='clearstory generate runs/book "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1',
)
