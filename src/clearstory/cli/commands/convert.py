"""clearstory convert: a model in another format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import ConvertRecipe


def run(recipe: ConvertRecipe, talk: Talk) -> Mapping[str, Any]:
    """Convert, and say how it compares."""
    from clearstory.recipes.convert import convert

    found = convert(recipe.model, recipe.out, recipe.to, overwrite=recipe.overwrite)
    if not talk.json:
        talk.out.print(f"{found.path}: {found.parameters:,} parameters in {found.bytes:,} bytes")
        talk.out.print(
            f"opened again: {found.compared:,} tokens need the same, to {found.difference:.1g} nats at the most"
        )
    return {**asdict(found), "path": str(found.path)}


COMMAND = Command(recipe=ConvertRecipe, run=run, example="clearstory convert runs/book book.arpa.gz")
