"""clearstory compare: several models on the same text, in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.comparing import CompareRecipe


def run(recipe: CompareRecipe, talk: Talk) -> Mapping[str, Any]:
    """Train or open every model, measure all, and print the ladder."""
    from clearstory.cli.standings import follow, summary
    from clearstory.recipes.compare import compare_events

    ladder = follow(compare_events(recipe), talk)
    if not talk.json:
        summary(ladder, talk.out)
    return ladder.to_json()


COMMAND = Command(
    recipe=CompareRecipe,
    run=run,
    example="clearstory compare corpus:kjv --models ngram,lstm,clear --cpu-seconds 60",
)
