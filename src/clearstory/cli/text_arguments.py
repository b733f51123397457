"""Arguments that commands on texts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clearstory.cli.command import Output
from clearstory.errors import BadInput
from clearstory.recipes.settings.inference import ClassifyRecipe, TagRecipe
from clearstory.recipes.settings.translation import TranslateRecipe

READING = ("truncate", "stride", "batch_size", "errors", "text_field", "device", "int8")
"""Settings of how texts are read and in what batches they are computed."""


def given_texts(recipe: ClassifyRecipe | TagRecipe) -> list[str | Path]:
    """The texts and files that are given, `--input` last."""
    return [*recipe.text, *([] if recipe.input is None else [recipe.input])]


def reading_arguments(recipe: ClassifyRecipe | TagRecipe) -> dict[str, Any]:
    """How texts are read, as keyword arguments of `classify` and `tag`."""
    return {name: getattr(recipe, name) for name in READING}


def generate_for_texts(
    generate: Callable[..., Any], recipe: TranslateRecipe, output: Output, label: str
) -> Mapping[str, Any] | None:
    """Print what `translate` or `summarize` generates, or write it to a file.

    Raises BadInput, after that, where lines of a file have no output.
    """
    from clearstory.cli.training_display import progress_bar
    from clearstory.recipes.inference.translation_file import format_translations

    settings = recipe.translation
    with progress_bar(output, label) as on_progress:
        made = generate(recipe.model, recipe.text, **vars(settings), on_progress=on_progress)
    result: Mapping[str, Any] = made.to_json() if settings.out is None else {"out": str(settings.out)}
    if settings.out is not None:
        result = {**result, "count": len(made.texts), "failed": len(made.failures), "seconds": made.seconds}
    elif not output.json:
        output.write(format_translations("", [each.to_json() for each in made.texts]))
    if not made.failures:
        return result
    if output.json:
        output.print_json(result)
    for failure in made.failures[1:20]:
        output.stderr.print(failure, style="yellow")
    count = len(made.failures)
    lines = "line" if len(made.texts) == 1 else "lines"
    verbs = "has no output and is" if count == 1 else "have no output and are"
    raise BadInput(f"{count:,} of {len(made.texts):,} {lines} {verbs} left empty: {made.failures[0]}")
