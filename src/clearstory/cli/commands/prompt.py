"""clearstory prompt: measures zero-shot and few-shot prompting of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.prompting import PromptRecipe


def run(recipe: PromptRecipe, output: Output) -> Mapping[str, Any]:
    """Print the accuracy of each number of examples with its interval, the curve, and a prompt where it is wanted."""
    from clearstory.cli.training_display import format_seconds, progress_bar
    from clearstory.lens.rendering.dispatch import render_terminal
    from clearstory.recipes.prompting.prompt import run_prompt
    from clearstory.recipes.prompting.report import mean_text

    with progress_bar(output, "answering") as on_progress:
        report = run_prompt(recipe, recipe.model, on_progress)
    if not output.json:
        for note in report.notes:
            output.stderr.print(note, style="dim")
        if recipe.show_prompt is not None:
            output.console.print(report.prompt, style="cyan")
        for each in report.means:
            draws = f"{each.draws} draw{'s' * (each.draws != 1)}"
            output.console.print(f"{each.answers}, {each.shots} examples: accuracy {mean_text(each)}, {draws}")
        if len({each.shots for each in report.means}) > 1:
            output.console.print(render_terminal(report.curve(), min(100, output.console.width)))
        for sentence in report.verdicts:
            output.console.print(sentence)
        majority = "" if report.majority is None else f"majority label {report.majority:.3f}, "
        where = "" if recipe.out is None else f"; results in {recipe.out}"
        output.console.print(
            f"{majority}chance {report.chance:.3f}; {report.rows:,} rows of {report.data} in "
            f"{format_seconds(report.seconds)}{where}"
        )
    return report.to_json()


COMMAND = Command(
    recipe=PromptRecipe,
    run=run,
    example=(
        'clearstory prompt models/smollm2 --template "Review: {text} Sentiment: {label}" --examples reviews.csv '
        "--shots 0,4,16"
    ),
)
