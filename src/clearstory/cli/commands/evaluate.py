"""clearstory evaluate: measure a model in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import EvaluateRecipe


def run(recipe: EvaluateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Measure, and print the numbers."""
    from clearstory.recipes.evaluate import evaluate

    raise NotImplementedError(evaluate)


COMMAND = Command(recipe=EvaluateRecipe, run=run, example="clearstory evaluate runs/book another-book.txt")
