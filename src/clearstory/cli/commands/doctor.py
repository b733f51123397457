"""clearstory doctor: what this machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.settings.tools import DoctorRecipe


def run(recipe: DoctorRecipe, talk: Talk) -> Mapping[str, Any]:
    """Examine, and print a line for each finding."""
    from clearstory.recipes.doctor import doctor

    report = doctor(measure=recipe.measure)
    if not talk.json:
        for finding in report.findings:
            style = {"good": None, "note": "yellow", "bad": "red"}[finding.verdict]
            talk.out.print(f"{MARKS[finding.verdict]} {finding.subject:13}{finding.sentence}", style=style)
    return report.as_dict()


MARKS = {"good": "ok   ", "note": "note ", "bad": "bad  "}

COMMAND = Command(recipe=DoctorRecipe, run=run, example="clearstory doctor")
