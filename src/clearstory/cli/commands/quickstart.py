"""clearstory quickstart: from nothing to a model that writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings import QuickstartRecipe


def run(recipe: QuickstartRecipe, talk: Talk) -> Mapping[str, Any]:
    """Train, then show what the model can do."""
    from clearstory.cli.display import show, summary
    from clearstory.recipes.quickstart import quickstart_events, tour

    finished = show(quickstart_events(recipe), talk)
    talk.out.print(summary(finished))
    shown = tour(finished, seed=recipe.seed)
    for part in shown:
        talk.out.print(f"\n{part.title}\n{part.text}")
    return {**asdict(finished), "tour": {part.title: part.text for part in shown}}


COMMAND = Command(recipe=QuickstartRecipe, run=run, example="clearstory quickstart --minutes 3")
