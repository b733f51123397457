"""Arguments that commands on texts have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearstory.recipes.settings.inference import ClassifyRecipe, TagRecipe

READING = ("truncate", "stride", "batch_size", "errors", "text_field", "device", "int8")
"""Settings of how texts are read and in what batches they are computed."""


def given_texts(recipe: ClassifyRecipe | TagRecipe) -> list[str | Path]:
    """The texts and files that are given, `--input` last."""
    return [*recipe.text, *([] if recipe.input is None else [recipe.input])]


def reading_arguments(recipe: ClassifyRecipe | TagRecipe) -> dict[str, Any]:
    """How texts are read, as keyword arguments of `classify` and `tag`."""
    return {name: getattr(recipe, name) for name in READING}
