"""clearstory doctor: checks what this machine supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.tools import DoctorRecipe


def run(recipe: DoctorRecipe, output: Output) -> Mapping[str, Any]:
    """Print one line for each finding."""
    from clearstory.recipes.doctor import doctor

    report = doctor(measure=recipe.measure)
    if not output.json:
        for finding in report.findings:
            style = {"good": None, "note": "yellow", "bad": "red"}[finding.verdict]
            output.console.print(
                f"{VERDICT_LABELS[finding.verdict]} {finding.subject:13}{finding.sentence}", style=style
            )
    return report.as_dict()


VERDICT_LABELS = {"good": "ok   ", "note": "note ", "bad": "bad  "}

COMMAND = Command(recipe=DoctorRecipe, run=run, example="clearstory doctor")
