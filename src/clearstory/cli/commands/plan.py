"""clearstory plan: estimates the parameters, memory, time and cost of training a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.tools import PlanRecipe


def run(recipe: PlanRecipe, output: Output) -> Mapping[str, Any]:
    """Compute the estimate and print its tables."""
    from clearstory.recipes.planning.plan import plan

    estimate = plan(recipe)
    if not output.json:
        from clearstory.cli.plan_display import print_plan

        print_plan(estimate, output.console)
    return estimate.as_dict()


COMMAND = Command(recipe=PlanRecipe, run=run, example="clearstory plan gpt3-175b --devices 1024 --tokens 300B")
