"""clearstory evaluate: measure a model in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import EvaluateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.inference.evaluate_encoder import EncoderEvaluation


def run(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Measure, and print the numbers."""
    if recipe.task == "tag":
        return run_tags(recipe, output)
    from clearstory.cli.training_display import clock, counting
    from clearstory.recipes.inference.evaluate_encoder import EncoderEvaluation
    from clearstory.recipes.inference.evaluate import evaluate
    from clearstory.text.settings import DataSettings

    with counting(output, "measuring") as told:
        found = evaluate(
            recipe.model,
            recipe.text,
            windows=recipe.windows,
            stride=recipe.stride,
            batch_size=recipe.batch_size,
            limit=recipe.limit,
            data=DataSettings(text_field=recipe.text_field, errors=recipe.errors),
            int8=recipe.int8,
            device=recipe.device,
            on_progress=told,
        )
    if isinstance(found, EncoderEvaluation):
        if not output.json:
            show_both_sides(found, output)
    elif not output.json:
        score = found.score
        per_byte = f"{score.reason}" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f} bits per byte"
        output.console.print(f"{per_byte} ({score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:,.2f})")
        read = "read whole" if found.context is None else f"{found.windows} windows of {found.context:,}"
        if found.windows == "strided":
            read += f", {found.stride:,} apart"
        documents = f"{found.documents:,} document{'s' * (found.documents != 1)}"
        output.console.print(f"{score.tokens:,} tokens of {documents} in {clock(found.seconds)}; {read}")
    return found.to_json()


def show_both_sides(found: EncoderEvaluation, output: Output) -> None:
    """What an encoder told."""
    from clearstory.cli.training_display import clock

    output.console.print(f"{found.nats_per_token:.4f} nats per masked token ({found.tokens:,} masked, as in training)")
    if found.next_sentence_accuracy is not None:
        output.console.print(f"{found.next_sentence_accuracy:.2%} of {found.pairs:,} pairs of sentences told rightly")
    output.console.print(
        f"{found.pseudo_nats_per_token:.4f} nats per token of pseudo-likelihood, each of {found.pseudo_tokens:,} "
        "tokens told from all around it"
    )
    output.console.print(
        f"{found.documents:,} document{'s' * (found.documents != 1)} in {clock(found.seconds)}; {found.reason}"
    )


def run_tags(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Count the words that get the tag they have."""
    from dataclasses import asdict

    from clearstory.cli.training_display import clock
    from clearstory.recipes.inference.tag import evaluate_tags
    from clearstory.text.settings import DataSettings

    found = evaluate_tags(recipe.model, recipe.text, DataSettings(errors=recipe.errors))
    if not output.json:
        new = "" if found.unknown_accuracy is None else f", {found.unknown_accuracy:.2%} of {found.unknown:,} new ones"
        output.console.print(
            f"{found.accuracy:.2%} of {found.tokens:,} words tagged right{new}; macro F1 {found.macro_f1:.4f}"
        )
        output.console.print(f"{found.sentences:,} sentences in {clock(found.seconds)}")
    return asdict(found)


COMMAND = Command(recipe=EvaluateRecipe, run=run, example="clearstory evaluate runs/book another-book.txt")
