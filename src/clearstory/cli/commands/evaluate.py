"""clearstory evaluate: measures how well a model predicts a text, in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.inference import EvaluateRecipe

if TYPE_CHECKING:
    from clearstory.recipes.inference.evaluate import Evaluation
    from clearstory.recipes.inference.evaluate_encoder import EncoderEvaluation
    from clearstory.recipes.inference.loading import ModelWithTokenizer


def run(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Evaluate and print the scores."""
    if recipe.task == "tag":
        return run_tags(recipe, output)
    if recipe.task != "text":
        return run_task(recipe, output)
    from clearstory.cli.training_display import progress_bar
    from clearstory.recipes.inference.evaluate import Evaluation, evaluate

    with progress_bar(output, "evaluating") as on_progress:
        evaluation = evaluate(
            recipe.model,
            recipe.text,
            windows=recipe.windows,
            stride=recipe.stride,
            batch_size=recipe.batch_size,
            limit=recipe.limit,
            data=recipe.data,
            precision=recipe.precision,
            int8=recipe.int8,
            device=recipe.device,
            on_progress=on_progress,
        )
    if evaluation.note:
        output.stderr.print(evaluation.note, style="yellow")
    if not output.json:
        if isinstance(evaluation, Evaluation):
            print_evaluation(evaluation, output)
        else:
            print_encoder_evaluation(evaluation, output)
    return evaluation.to_json()


def print_evaluation(evaluation: Evaluation, output: Output) -> None:
    """Print the score of a text and how it was read."""
    from clearstory.cli.training_display import format_count, format_seconds

    score = evaluation.score
    bits = f"{score.reason}" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f} bits per byte"
    output.console.print(f"{bits} ({score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:,.2f})")
    windows = "whole documents"
    if evaluation.context is not None:
        windows = f"{evaluation.windows} windows of {evaluation.context:,} tokens"
    if evaluation.windows == "strided":
        windows += f", stride {evaluation.stride:,}"
    documents, seconds = format_count(evaluation.documents, "document"), format_seconds(evaluation.seconds)
    output.console.print(f"{score.tokens:,} tokens of {documents} in {seconds}; {windows}")


def print_encoder_evaluation(evaluation: EncoderEvaluation, output: Output) -> None:
    """Print the scores of an encoder."""
    from clearstory.cli.training_display import format_count, format_seconds

    output.console.print(
        f"{evaluation.nats_per_token:.4f} nats per masked token ({evaluation.tokens:,} masked, as in training)"
    )
    if evaluation.next_sentence_accuracy is not None:
        output.console.print(
            f"next-sentence accuracy {evaluation.next_sentence_accuracy:.2%} on {evaluation.pairs:,} pairs"
        )
    output.console.print(
        f"{evaluation.pseudo_nats_per_token:.4f} nats per token by pseudo-likelihood, of "
        f"{evaluation.pseudo_tokens:,} tokens"
    )
    documents, seconds = format_count(evaluation.documents, "document"), format_seconds(evaluation.seconds)
    output.console.print(f"{documents} in {seconds}; {evaluation.reason}")


def run_tags(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Print the accuracy of predicted tags."""
    from dataclasses import asdict

    from clearstory.cli.training_display import format_seconds
    from clearstory.formats.folders import open_model
    from clearstory.models.capabilities import Capability, has_capability
    from clearstory.recipes.inference.tag import evaluate_tags

    model = open_model(recipe.model)
    if has_capability(model.model, Capability.CLASSIFIER):
        return run_task(recipe, output, model)
    score = evaluate_tags(model, recipe.text, recipe.data)
    if not output.json:
        unknown = ""
        if score.unknown_accuracy is not None:
            unknown = f", {score.unknown_accuracy:.2%} of {score.unknown:,} out-of-vocabulary words"
        output.console.print(
            f"accuracy {score.accuracy:.2%} of {score.tokens:,} words{unknown}; macro F1 {score.macro_f1:.4f}"
        )
        output.console.print(f"{score.sentences:,} sentences in {format_seconds(score.seconds)}")
    return asdict(score)


def run_task(recipe: EvaluateRecipe, output: Output, model: ModelWithTokenizer | None = None) -> Mapping[str, Any]:
    """Print the metrics of a task with their intervals, and the scores of each label."""
    from clearstory.recipes.inference.evaluate_task import evaluate_on_task

    scores = evaluate_on_task(
        model or recipe.model,
        recipe.text,
        recipe.task,
        reading=recipe.reading(),
        truncate=recipe.truncate,
        stride=recipe.stride,
        device=recipe.device,
    )
    if not output.json:
        for name, value in scores.metrics.items():
            low, high = scores.intervals.get(name, (value, value))
            title = name.replace("_", " ").replace(" f1", " F1")
            output.console.print(f"{title} {value:.4f} (95 % interval {low:.4f} to {high:.4f})")
        for label in scores.details.get("labels", ()):
            numbers = "  ".join(f"{name} {label[name]:.4f}" for name in ("precision", "recall", "f1"))
            output.console.print(f"  {label['label']}: {numbers}  of {label['support']:,}")
        output.console.print(f"{scores.examples:,} examples of {scores.data}")
    return scores.to_json()


def needs_torch(recipe: EvaluateRecipe) -> bool:
    """Whether the model is any but an n-gram model, whose tables numpy reads."""
    from clearstory.formats.ngram_tables import is_ngram_model

    return recipe.task != "text" or recipe.device not in (None, "cpu") or not is_ngram_model(recipe.model)


COMMAND = Command(
    recipe=EvaluateRecipe,
    run=run,
    example="clearstory evaluate runs/book another-book.txt",
    needs_torch=needs_torch,
)
