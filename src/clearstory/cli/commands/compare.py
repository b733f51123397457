"""clearstory compare: trains or measures several models on the same text and ranks them by bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.comparison.settings import CompareRecipe


def run(recipe: CompareRecipe, output: Output) -> Mapping[str, Any]:
    """Train or load every model, measure all of them, and print the leaderboard; or fit a scaling law; or print the
    results so far.
    """
    from clearstory.cli.comparison_display import print_leaderboard, show_comparison
    from clearstory.lens.rendering.canvas import sanitize
    from clearstory.recipes.comparison.compare import compare_events
    from clearstory.recipes.comparison.output_folder import is_scaling
    from clearstory.recipes.comparison.result_files import read_results

    if recipe.out and not recipe.sources and not recipe.resume:
        table, values = read_results(recipe.out)
        if not output.json:
            for line in table.splitlines():
                output.console.print(sanitize(line), highlight=False, markup=False, soft_wrap=True)
        return values
    if recipe.sizes or (recipe.resume and not recipe.sources and is_scaling(recipe)):
        from clearstory.cli.scaling_display import print_scaling, show_scaling
        from clearstory.recipes.comparison.scaling import scaling_events

        report = show_scaling(scaling_events(recipe), output)
        if not output.json:
            print_scaling(report, output.console)
        return report.to_json()
    leaderboard = show_comparison(compare_events(recipe), output)
    if not output.json:
        print_leaderboard(leaderboard, output.console)
    return leaderboard.to_json()


COMMAND = Command(
    recipe=CompareRecipe,
    run=run,
    example="clearstory compare corpus:kjv --models ngram,lstm,clear --cpu-seconds 60",
    further_examples=("clearstory compare corpus:kjv --sizes auto --tokenizer characters --cpu-seconds 600",),
)
