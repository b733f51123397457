"""clearstory classify: predicts the label of each text, or of each of its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearstory.cli.command import Command, Output
from clearstory.cli.text_arguments import given_texts, reading_arguments
from clearstory.recipes.settings.inference import ClassifyRecipe


def run(recipe: ClassifyRecipe, output: Output) -> Mapping[str, Any]:
    """Print each text with the probabilities of its labels, or each word with its label, one a line."""
    from clearstory.recipes.inference.classify import classify, write_classifications

    results = classify(
        recipe.model, given_texts(recipe), pair=recipe.pair, pair_column=recipe.pair_column, **reading_arguments(recipe)
    )
    if recipe.out is not None:
        write_classifications(recipe.out, results)
        return {"out": str(recipe.out), "count": len(results)}
    if not output.json:
        for each in results:
            lines = [f"{each.text}\n"] if each.labels else []
            lines += [f"{label.probability:9.2%}  {label.label}\n" for label in each.labels]
            lines += [f"{word.word}\t{word.label or ''}\n" for word in each.words] + ["\n"] * bool(each.words)
            output.write("".join(lines))
    return {**results[0].to_json(), "texts": [each.to_json() for each in results]}


COMMAND = Command(recipe=ClassifyRecipe, run=run, example='clearstory classify moods "What a fine day!"')
