"""clearstory summarize: summarizes texts, or the lines of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.text_arguments import generate_for_texts
from clearstory.recipes.settings.translation import SummarizeRecipe


def run(recipe: SummarizeRecipe, output: Output) -> Mapping[str, Any] | None:
    """Print each summary on a line, or write them to a file."""
    from clearstory.recipes.inference.translate import summarize

    return generate_for_texts(summarize, recipe, output, "summarizing")


COMMAND = Command(
    recipe=SummarizeRecipe,
    run=run,
    example="clearstory summarize runs/abstracts abstracts.txt --truncate source-right",
)
