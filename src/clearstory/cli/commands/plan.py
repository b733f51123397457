"""clearstory plan: what a model would take, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings.tools import PlanRecipe


def run(recipe: PlanRecipe, talk: Talk) -> Mapping[str, Any]:
    """Count, and print the tables."""
    from clearstory.recipes.planning.plan import plan

    planned = plan(recipe)
    if not talk.json:
        from clearstory.cli.plan_display import draw_plan

        draw_plan(planned, talk.out)
    return planned.as_dict()


COMMAND = Command(recipe=PlanRecipe, run=run, example="clearstory plan gpt3-175b --devices 1024 --tokens 300B")
