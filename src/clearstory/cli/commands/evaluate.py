"""clearstory evaluate: measure a model in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Talk
from clearstory.recipes.using import EvaluateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.both_sides import BothSides


def run(recipe: EvaluateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Measure, and print the numbers."""
    if recipe.task == "tag":
        return run_tags(recipe, talk)
    from clearstory.cli.display import clock, counting
    from clearstory.recipes.both_sides import BothSides
    from clearstory.recipes.evaluate import evaluate
    from clearstory.text.settings import DataSettings

    with counting(talk, "measuring") as told:
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
    if isinstance(found, BothSides):
        if not talk.json:
            show_both_sides(found, talk)
    elif not talk.json:
        score = found.score
        per_byte = f"{score.reason}" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f} bits per byte"
        talk.out.print(f"{per_byte} ({score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:,.2f})")
        read = "read whole" if found.context is None else f"{found.windows} windows of {found.context:,}"
        if found.windows == "strided":
            read += f", {found.stride:,} apart"
        documents = f"{found.documents:,} document{'s' * (found.documents != 1)}"
        talk.out.print(f"{score.tokens:,} tokens of {documents} in {clock(found.seconds)}; {read}")
    return found.to_json()


def show_both_sides(found: BothSides, talk: Talk) -> None:
    """What an encoder told."""
    from clearstory.cli.display import clock

    talk.out.print(f"{found.nats_per_token:.4f} nats per masked token ({found.tokens:,} masked, as in training)")
    if found.next_sentence_accuracy is not None:
        talk.out.print(f"{found.next_sentence_accuracy:.2%} of {found.pairs:,} pairs of sentences told rightly")
    talk.out.print(
        f"{found.pseudo_nats_per_token:.4f} nats per token of pseudo-likelihood, each of {found.pseudo_tokens:,} "
        "tokens told from all around it"
    )
    talk.out.print(
        f"{found.documents:,} document{'s' * (found.documents != 1)} in {clock(found.seconds)}; {found.reason}"
    )


def run_tags(recipe: EvaluateRecipe, talk: Talk) -> Mapping[str, Any]:
    """Count the words that get the tag they have."""
    from dataclasses import asdict

    from clearstory.cli.display import clock
    from clearstory.recipes.tagging import evaluate_tags
    from clearstory.text.settings import DataSettings

    found = evaluate_tags(recipe.model, recipe.text, DataSettings(errors=recipe.errors))
    if not talk.json:
        new = "" if found.unknown_accuracy is None else f", {found.unknown_accuracy:.2%} of {found.unknown:,} new ones"
        talk.out.print(
            f"{found.accuracy:.2%} of {found.tokens:,} words tagged right{new}; macro F1 {found.macro_f1:.4f}"
        )
        talk.out.print(f"{found.sentences:,} sentences in {clock(found.seconds)}")
    return asdict(found)


COMMAND = Command(recipe=EvaluateRecipe, run=run, example="clearstory evaluate runs/book another-book.txt")
