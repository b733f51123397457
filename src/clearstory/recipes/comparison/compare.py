"""Compare: trains or opens several models, measures all of them on the same text, and ranks them.

text ─► tokenizers ─► (train ─► measure ─► sample)* ─► leaderboard ─► compare.json · report.html · curves.svg
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import torch

from clearstory import __version__, durable
from clearstory.errors import BadInput, BadSetting, CannotDo, Diverged
from clearstory.evaluation.units import EvalText
from clearstory.formats.folders import OpenedModel, open_model, update_model_card
from clearstory.lens.rendering.render import save_view
from clearstory.models.device import resolve_device
from clearstory.models.families import preset
from clearstory.recipes.comparison.leaderboard import Leaderboard, ModelResult, compare_pairs, rank_models
from clearstory.recipes.comparison.model_run import TrainingContext, has_random_init, measure_model
from clearstory.recipes.comparison.output_folder import RESULT_FILE, load_result, open_output_folder, write_config
from clearstory.recipes.comparison.report import curve_view, report_html
from clearstory.recipes.comparison.settings import (
    CompareRecipe,
    ModelSpec,
    command_line,
    describe_budget,
    source_names,
)
from clearstory.recipes.settings.keywords import CompareKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import TrainingEvent, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.run_folder import RunFolder, processor_name
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents


@dataclass(frozen=True)
class ComparisonStarted:
    """The evaluation text is read and the models are known."""

    text: str
    bytes: int
    unit: str
    budget: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class ModelProgress:
    """Progress of one model: None at its start, then its training events, then (done, total) of its measurement."""

    model: str
    progress: TrainingEvent | tuple[int, int] | None = None


@dataclass(frozen=True)
class ModelMeasured:
    """One model is measured. `reused`: the result was saved by an earlier call."""

    result: ModelResult
    reused: bool = False


ComparisonEvent = ComparisonStarted | ModelProgress | ModelMeasured | Leaderboard
"""Events of a comparison; the last one is the Leaderboard."""


def compare(*sources: str | Path, **settings: Unpack[CompareKeywords]) -> Leaderboard:
    """Models ranked by bits per byte on the same text.

    With `models`, `sources` is the training text; without, `sources` are the models and `text` the evaluation text.
    `settings` are the fields of CompareRecipe; see `clearstory compare --help`.

    >>> import clearstory
    >>> clearstory.compare("corpus:kjv", models=("ngram", "clear"), cpu_seconds=60).entries[0]  # doctest: +SKIP
    """
    leaderboard = None
    for event in compare_events(build_settings(CompareRecipe, {"sources": tuple(map(str, sources)), **settings})):
        leaderboard = event
    assert isinstance(leaderboard, Leaderboard)
    return leaderboard


def compare_events(recipe: CompareRecipe) -> Iterator[ComparisonEvent]:
    """Events of a comparison; the last one is the Leaderboard, whose files are then written.

    Ctrl-C raises KeyboardInterrupt; finished models are kept, and so is a checkpoint of an unfinished one.
    """
    folder, recipe = open_output_folder(recipe)
    results: list[ModelResult] = []
    try:
        if recipe.models:
            corpus = Corpus.open(recipe.sources, recipe.data)
            text = evaluation_text(recipe, corpus)
            labels = tuple(spec.label for spec in recipe.model_specs)
            events = train_and_measure(TrainingContext(recipe, folder, corpus), text)
        else:
            text = EvalText.from_documents(source_names(recipe.text), read_documents(recipe.text, recipe.data))
            labels = recipe.sources
            events = open_and_measure(recipe, text)
        yield ComparisonStarted(text.name, text.bytes, text.unit, describe_budget(recipe), labels)
        write_config(folder, recipe)
        for event in events:
            if isinstance(event, ModelMeasured):
                results.append(event.result)
            yield event
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted_message(recipe, folder, results)) from None
    if all(result.error for result in results):
        raise BadSetting(f"no model could be compared; of {results[0].model}: {results[0].error}")
    yield write_leaderboard(recipe, folder, text, results)


def evaluation_text(recipe: CompareRecipe, corpus: Corpus) -> EvalText:
    """The text given as `text`, else the held-out part of the corpus."""
    if recipe.text:
        return EvalText.from_documents(source_names(recipe.text), read_documents(recipe.text, recipe.data))
    text = EvalText.from_documents(f"the held-out part of {corpus.name}", corpus.documents("validation"))
    if not text.bytes:
        raise BadSetting(
            "no text is held out for evaluation; set --data.validation to a fraction such as 0.1, or --text"
        )
    return text


def train_and_measure(context: TrainingContext, text: EvalText) -> Iterator[ModelProgress | ModelMeasured]:
    """Train and measure every model of a comparison, one after another."""
    recipe = context.recipe
    for spec in recipe.model_specs:
        for seed in range(recipe.seed, recipe.seed + recipe.seeds):
            saved = load_result(context.run_folder(spec, seed))
            if saved is not None:
                yield ModelMeasured(saved, reused=True)
                continue
            yield ModelProgress(spec.label)
            try:
                settings = context.train_recipe(spec, seed)
                _, tokenizer, dataset = context.encoded_corpus(context.tokenizer_spec(spec))
                trained = None
                for event in train_events(settings, full_evaluation=False):
                    trained = event
                    yield ModelProgress(spec.label, event)
                assert isinstance(trained, TrainingResult)
            except (BadInput, BadSetting, CannotDo, Diverged) as error:
                # Not saved: a resumed comparison trains the model again.
                yield ModelMeasured(failed_result(spec, seed, str(error)))
                break
            yield ModelProgress(spec.label, (0, 1))
            yield ModelMeasured(measure_and_save(context, spec, seed, text, trained, len(dataset)))
            if not has_random_init(settings, tokenizer):
                break  # another seed would give the same model


def measure_and_save(
    context: TrainingContext, spec: ModelSpec, seed: int, text: EvalText, trained: TrainingResult, epoch_tokens: int
) -> ModelResult:
    """The result of a trained model, saved in its run folder and on its model card."""
    recipe = context.recipe
    opened = open_model(trained.folder)
    result = measure_model(
        spec.label,
        opened,
        text,
        recipe,
        folder=trained.folder,
        prompt=sample_prompt(recipe, text),
        seed=seed,
        trained=trained,
        tokenizer=context.tokenizer_spec(spec),
        epoch_tokens=epoch_tokens,
    )
    notes = filter(None, (budget_overrun(recipe, trained), result.note))
    result = replace(result, note="; ".join(notes) or None)
    update_model_card(trained.folder, replace(opened.card, bits_per_byte=result.bits_per_byte))
    durable.write_json(context.run_folder(spec, seed) / RESULT_FILE, result.to_json())
    return result


def sample_prompt(recipe: CompareRecipe, text: EvalText) -> str:
    """The prompt of the samples: the one that is given, else the beginning of the evaluation text."""
    return recipe.prompt if recipe.prompt is not None else text.first_words()


def failed_result(spec: ModelSpec, seed: int, error: str) -> ModelResult:
    """The result of a model that could not be trained under the budget."""
    return ModelResult(model=spec.label, family=preset(spec.preset).family, seed=seed, error=error)


def budget_overrun(recipe: CompareRecipe, trained: TrainingResult) -> str | None:
    """A note for a model that took more than 10 % over its time budget; None for any other."""
    if recipe.cpu_seconds is not None and trained.cpu_seconds > 1.1 * recipe.cpu_seconds + 1:
        return f"took {trained.cpu_seconds:.0f} CPU seconds of {recipe.cpu_seconds:g}"
    if recipe.minutes is not None and trained.seconds > 66 * recipe.minutes + 1:
        return f"took {trained.seconds / 60:.1f} minutes of {recipe.minutes:g}"
    return None


def open_and_measure(recipe: CompareRecipe, text: EvalText) -> Iterator[ModelProgress | ModelMeasured]:
    """Measure trained models on one text."""
    # All are opened first, so that a wrong name is reported before any time is spent on measuring.
    opened_models: list[tuple[str, OpenedModel]] = [(source, open_model(source)) for source in recipe.sources]
    for label, opened in opened_models:
        yield ModelProgress(label)
        if recipe.device != "auto":
            opened.model.to(resolve_device(recipe.device))
        run = RunFolder(Path(label))
        folder = run.model_folder if run.model_folder.is_dir() else run.path
        prompt = sample_prompt(recipe, text)
        yield ModelMeasured(measure_model(label, opened, text, recipe, folder=folder, prompt=prompt))


def write_leaderboard(
    recipe: CompareRecipe, folder: Path, text: EvalText, results: Sequence[ModelResult]
) -> Leaderboard:
    """The leaderboard, written to the results folder as compare.json, report.html and curves.svg."""
    entries = rank_models(results, text.sizes)
    leaderboard = Leaderboard(
        text=text.name,
        bytes=text.bytes,
        unit=text.unit,
        units=len(text.ends),
        trained_on=source_names(recipe.sources) if recipe.models else None,
        budget=describe_budget(recipe),
        prompt=sample_prompt(recipe, text),
        entries=entries,
        pairs=compare_pairs(entries, text.sizes),
        command=command_line(recipe),
        machine={
            "clearstory": __version__,
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        folder=folder,
    )
    durable.write_json(folder / "compare.json", leaderboard.to_json())
    curves = curve_view(leaderboard)
    if curves.lines:
        save_view(curves, folder / "curves.svg")
    durable.write_text(folder / "report.html", report_html(leaderboard))
    return leaderboard


def interrupted_message(recipe: CompareRecipe, folder: Path, results: Sequence[ModelResult]) -> str:
    """The message after Ctrl-C, with the command that resumes the comparison."""
    done = len({result.model for result in results if not result.error})
    if not recipe.models:
        return f"stopped with {done} of {len(recipe.sources)} models measured"
    return (
        f"stopped with {done} of {len(recipe.model_specs)} models finished; "
        f"resume with: clearstory compare --resume --out {shlex.quote(str(folder))}"
    )
