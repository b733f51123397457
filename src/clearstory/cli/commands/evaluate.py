"""clearstory evaluate: measures how well a model predicts a text, in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearstory.cli.command import Command, Output
from clearstory.recipes.settings.evaluation import EvaluateRecipe
from clearstory.recipes.settings.evaluation_tasks import PROBES

if TYPE_CHECKING:
    from clearstory.recipes.inference.encoder_evaluation import EncoderEvaluation
    from clearstory.recipes.inference.text_evaluation import Evaluation
    from clearstory.recipes.inference.vector_scores import VectorScores


def run(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Evaluate and print the scores."""
    if recipe.harness_tasks:
        return run_harness(recipe, output)
    if recipe.task == (PROBES,):
        return run_probes(recipe, output)
    if recipe.vector_tasks:
        return run_vector_tasks(recipe, output)
    if recipe.task != ("text",):
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


def run_task(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Print the metrics of a task with their intervals, and the scores of each label."""
    from clearstory.cli.training_display import progress_bar
    from clearstory.recipes.inference.evaluate_task import evaluate_on_task
    from clearstory.tasks.base import metric_title

    with progress_bar(output, "generating") as on_progress:
        scores = evaluate_on_task(
            recipe.model,
            recipe.text,
            recipe.task[0],
            reading=recipe.reading(),
            truncate=recipe.truncate,
            stride=recipe.stride,
            chat=recipe.chat,
            text_to_text=recipe.text_to_text,
            device=recipe.device,
            on_progress=on_progress,
        )
    if not output.json:
        for name, value in scores.metrics.items():
            low, high = scores.intervals.get(name, (None, None))
            interval = "" if low is None else f" (95 % interval {low:.4f} to {high:.4f})"
            output.console.print(f"{metric_title(name)} {value:.4f}{interval}")
        print_text_details(scores.details, output)
        for label in scores.details.get("labels", ()):
            numbers = "  ".join(f"{name} {label[name]:.4f}" for name in ("precision", "recall", "f1"))
            output.console.print(f"  {label['label']}: {numbers}  of {label['support']:,}")
        unknown = scores.details.get("unknown_words", {})
        if unknown.get("accuracy") is not None:
            output.console.print(f"accuracy {unknown['accuracy']:.4f} of {unknown['count']:,} out-of-vocabulary words")
        output.console.print(f"{scores.examples:,} examples of {scores.data}")
    return scores.to_json()


def print_text_details(details: Mapping[str, Any], output: Output) -> None:
    """Print how texts were generated and scored, and the scores of others in their place."""
    if "decoding" in details:
        output.console.print(f"generated with {details['decoding']}")
    for name, signature in details.get("signatures", {}).items():
        output.console.print(f"  {name}: {signature}")
    for name, each in details.get("baselines", {}).items():
        values = "  ".join(f"{metric} {value:.2f}" for metric, value in each["scores"].items())
        output.console.print(f"{name}: {values}")


def run_vector_tasks(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Print the scores of vectors on each set."""
    from clearstory.recipes.inference.evaluate_vectors import evaluate_vectors

    evaluation = evaluate_vectors(
        recipe.model,
        recipe.vector_tasks,
        vectors=recipe.vectors,
        reading=recipe.reading(),
        truncate=recipe.truncate if recipe.truncate in ("left", "right") else None,
        device=recipe.device,
    )
    if not output.json:
        for scores in evaluation.sets:
            print_vector_scores(scores, output)
    return evaluation.to_json()


def print_vector_scores(scores: VectorScores, output: Output) -> None:
    """Print the metrics of one set, its name, and the metrics of its sections."""
    from clearstory.cli.training_display import format_count

    titles = {"spearman": "Spearman", "3cosadd": "3CosAdd", "3cosmul": "3CosMul", "effect_size": "effect size"}
    metrics = []
    for name, value in scores.metrics.items():
        low, high = scores.intervals.get(name, (None, None))
        interval = "" if low is None else f" (95 % interval {low:.4f} to {high:.4f})"
        metrics.append(
            f"{titles.get(name, 'p')} {value:.4g}" if low is None else f"{titles[name]} {value:.4f}{interval}"
        )
    output.console.print(f"{scores.name}: {', '.join(metrics)}")
    of = {"similarity": "pair", "analogy": "question", "weat": "word"}[scores.task]
    notes = [f"{format_count(scores.examples, of)} by {scores.vectors}"]
    if "permutations" in scores.details:
        how = "all" if scores.details["exact"] else "random"
        notes.append(f"p from {how} {scores.details['permutations']:,} divisions")
    if "candidates" in scores.details:
        notes.append(f"{scores.details['candidates']:,} candidates")
    if scores.skipped:
        notes.append(f"{scores.skipped:,} skipped, with words that are not in the vocabulary")
    if scores.several_tokens:
        notes.append(f"{format_count(scores.several_tokens, 'word')} of several tokens, whose embeddings are averaged")
    output.console.print(f"  {'; '.join(notes)}")
    for section in scores.details.get("sections", ()):
        if not section["section"]:
            continue
        values = [
            f"{titles[name]} " + ("–" if section[name] is None else f"{section[name]:.4f}") for name in scores.metrics
        ]
        output.console.print(f"  {section['section']}: {'  '.join(values)}  of {section['examples']:,}")


def run_harness(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Print the metrics of tasks of lm-evaluation-harness with their intervals, and where the results are."""
    from clearstory.cli.training_display import format_seconds, progress_bar
    from clearstory.recipes.inference.evaluate_harness import evaluate_harness

    with progress_bar(output, "evaluating") as on_progress:
        evaluation = evaluate_harness(
            recipe.model,
            recipe.harness_tasks,
            recipe.benchmarks,
            limit=recipe.limit,
            batch_size=recipe.batch_size,
            device=recipe.device,
            on_progress=on_progress,
        )
    if not output.json:
        for each in evaluation.metrics:
            interval = each.interval
            more = "" if interval is None else f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})"
            of = "" if each.examples is None else f", {each.examples:,} examples"
            name = each.metric if each.filter == "none" else f"{each.metric} ({each.filter})"
            output.console.print(f"{each.task} {name} {each.value:.4f}{more}{of}")
        where = "" if recipe.benchmarks.out is None else f"; results in {recipe.benchmarks.out}"
        output.console.print(f"{format_seconds(evaluation.seconds)}{where}")
    return evaluation.to_json()


def run_probes(recipe: EvaluateRecipe, output: Output) -> Mapping[str, Any]:
    """Print the table of all probes, with intervals and chance levels, and the skipped probes."""
    from clearstory.cli.training_display import format_seconds, progress_bar
    from clearstory.recipes.inference.evaluate_probes import evaluate_probes

    with progress_bar(output, "probing") as on_progress:
        evaluation = evaluate_probes(
            recipe.model, recipe.benchmarks, limit=recipe.limit, device=recipe.device, on_progress=on_progress
        )
    if not output.json:
        rows = [("probe", "file", "metric", "value", "95 % interval", "chance", "examples", "by")]
        for each in evaluation.scores:
            interval = "" if each.interval is None else f"{each.interval[0]:.3f} to {each.interval[1]:.3f}"
            numbers = (f"{each.value:.3f}", interval, f"{each.chance:.3f}", f"{each.examples:,}")
            rows.append((each.probe, each.name, each.metric, *numbers, each.measure))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            output.console.print(line.rstrip())
        for sentence in evaluation.skipped:
            output.console.print(f"skipped {sentence}", style="yellow")
        output.console.print(format_seconds(evaluation.seconds))
    return evaluation.to_json()


def needs_torch(recipe: EvaluateRecipe) -> bool:
    """Whether the model is any but an n-gram model, whose tables numpy reads."""
    from clearstory.formats.ngram_tables import is_ngram_model

    return recipe.task != ("text",) or recipe.device not in (None, "cpu") or not is_ngram_model(recipe.model)


COMMAND = Command(
    recipe=EvaluateRecipe,
    run=run,
    example="clearstory evaluate runs/book another-book.txt",
    further_examples=(
        "clearstory evaluate models/minilm --task similarity:pairs.tsv analogy:questions.txt",
        "clearstory evaluate runs/book --task lm-eval:arc_easy,piqa --task-files benchmarks",
    ),
    needs_torch=needs_torch,
)
