"""Compare: trains or opens several models, measures all of them on the same text, and ranks them.

text ─► tokenizers ─► (train ─► measure ─► sample ─► result files)* ─► leaderboard

Result files are rewritten after every run, and a finished run is kept, so the results of a running comparison
can be read, and a comparison can be stopped, continued and extended.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from clearstory import durable
from clearstory.errors import BadInput, BadSetting, CannotDo, Diverged
from clearstory.evaluation.units import EvalText
from clearstory.formats.folders import OpenedModel, open_model, update_model_card
from clearstory.models.device import resolve_device
from clearstory.models.families import preset
from clearstory.recipes.comparison.leaderboard import Leaderboard, ModelResult
from clearstory.recipes.comparison.model_run import PlannedRun, TrainingContext, measure_model, planned_runs
from clearstory.recipes.comparison.output_folder import (
    RESULT_FILE,
    load_result,
    lock_output_folder,
    open_output_folder,
    write_config,
)
from clearstory.recipes.comparison.result_files import ResultFiles
from clearstory.recipes.comparison.settings import CompareRecipe, describe_budget, source_names
from clearstory.recipes.settings.keywords import CompareKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import TrainingEvent, TrainingResult
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents
from clearstory.text.read_notes import ReadNotes


@dataclass(frozen=True)
class ComparisonStarted:
    """The evaluation text is read and the runs are known: `runs` are their labels, `models` is the number of models,
    `folder` is the results folder, `note` lists skipped or replaced parts of the files.
    """

    text: str
    bytes: int
    unit: str
    budget: str
    models: int
    runs: tuple[str, ...]
    folder: Path
    note: str | None = None


@dataclass(frozen=True)
class ModelProgress:
    """Progress of run `number` (from 1): None at its start, then its training events, then (done, total) of its
    measurement.
    """

    run: str
    number: int
    progress: TrainingEvent | tuple[int, int] | None = None


@dataclass(frozen=True)
class ModelMeasured:
    """One run is measured. `reused`: the result was saved by an earlier call."""

    result: ModelResult
    reused: bool = False


ComparisonEvent = ComparisonStarted | ModelProgress | ModelMeasured | Leaderboard
"""Events of a comparison. After every run there is a Leaderboard of the results so far; the last one is complete."""


def compare(*sources: str | Path, **settings: Unpack[CompareKeywords]) -> Leaderboard:
    """Rank models by bits per byte on the same text.

    With `models`, `sources` is the training text; without, `sources` are the models and `text` is the evaluation text.
    `settings` are the fields of CompareRecipe; see `clearstory compare --help`.

    >>> import clearstory
    >>> clearstory.compare("corpus:kjv", models=("ngram", "clear"), cpu_seconds=60).entries[0]  # doctest: +SKIP
    """
    leaderboard = None
    if settings.get("sizes") or settings.get("amounts"):
        raise BadSetting("sizes are for scaling laws; call clearstory.scaling_law, or leave sizes out")
    for event in compare_events(build_settings(CompareRecipe, {"sources": tuple(map(str, sources)), **settings})):
        leaderboard = event
    assert isinstance(leaderboard, Leaderboard)
    return leaderboard


def compare_events(recipe: CompareRecipe) -> Iterator[ComparisonEvent]:
    """Events of a comparison; the last one is the complete Leaderboard. Result files are written after every run.

    Ctrl-C raises KeyboardInterrupt; finished runs are kept, and so is a checkpoint of an unfinished one. Raises
    FolderInUse where another process writes the output folder.
    """
    with lock_output_folder(recipe) as recipe:
        yield from events_in_folder(recipe)


def events_in_folder(recipe: CompareRecipe) -> Iterator[ComparisonEvent]:
    """Events of a comparison in a folder that this process may write."""
    folder, recipe = open_output_folder(recipe)
    notes = ReadNotes()
    if recipe.models:
        corpus = Corpus.open(recipe.sources, recipe.data)
        text = evaluation_text(recipe, corpus, notes)
        notes.remarks += corpus.notes.sentences()
        context = TrainingContext(recipe, folder, corpus)
        runs = planned_runs(recipe)
        labels = tuple(run.label for run in runs)
        # Results of an earlier comparison are kept by --resume only; with --overwrite their folders are deleted below.
        saved = [load_result(context.run_folder(run)) if recipe.resume else None for run in runs]
        models = len(recipe.model_specs)
        events = train_and_measure(context, text, [(i, run) for i, run in enumerate(runs, 1) if saved[i - 1] is None])
    else:
        text = EvalText.from_documents(source_names(recipe.text), read_documents(recipe.text, recipe.data, notes))
        labels, models, saved = recipe.sources, len(recipe.sources), []
        events = open_and_measure(recipe, text)
    files = ResultFiles(recipe, folder, text, len(labels), sample_prompt(recipe, text))
    yield ComparisonStarted(
        text.name, text.bytes, text.unit, describe_budget(recipe), models, labels, folder, notes.text
    )
    write_config(folder, recipe)
    try:
        if reused := [result for result in saved if result is not None]:
            yield from (ModelMeasured(result, reused=True) for result in reused)
            yield files.add(*reused)
        for event in events:
            yield event
            if isinstance(event, ModelMeasured):
                yield files.add(event.result)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted_message(files)) from None
    if all(result.error for result in files.results):
        first = files.results[0]
        raise BadSetting(f"no model could be compared; of {first.model}: {first.error}")
    yield files.write()


def evaluation_text(recipe: CompareRecipe, corpus: Corpus, notes: ReadNotes) -> EvalText:
    """The text given as `text`, else the held-out part of the corpus."""
    if recipe.text:
        return EvalText.from_documents(source_names(recipe.text), read_documents(recipe.text, recipe.data, notes))
    text = EvalText.from_documents(f"the held-out part of {corpus.name}", corpus.documents("validation"))
    if not text.bytes:
        raise BadSetting(
            "no text is held out for evaluation; set --data.validation to a fraction such as 0.1, or --text"
        )
    return text


def train_and_measure(
    context: TrainingContext, text: EvalText, runs: Sequence[tuple[int, PlannedRun]]
) -> Iterator[ModelProgress | ModelMeasured]:
    """Train and measure the numbered runs of a comparison, one after another."""
    invalid: dict[str, str] = {}  # by the model's label
    for number, run in runs:
        yield ModelProgress(run.label, number)
        trained, error = None, invalid.get(run.spec.label)
        try:
            if error is None:
                for event in train_events(context.train_recipe(run), full_evaluation=False):
                    trained = event
                    yield ModelProgress(run.label, number, event)
        except Diverged as reason:
            error = str(reason)
        except (BadInput, BadSetting, CannotDo) as reason:
            error = invalid[run.spec.label] = str(reason)  # another seed changes nothing
        if error is not None:  # not saved: a resumed comparison trains the model again
            yield ModelMeasured(failed_result(run, error))
            continue
        assert isinstance(trained, TrainingResult)
        yield ModelProgress(run.label, number, (0, 1))
        yield ModelMeasured(measure_and_save(context, run, text, trained))


def measure_and_save(context: TrainingContext, run: PlannedRun, text: EvalText, trained: TrainingResult) -> ModelResult:
    """The result of a trained model, saved in its run folder and on its model card."""
    recipe, tokenizer = context.recipe, context.tokenizer_spec(run.spec)
    opened = open_model(trained.folder)
    result = measure_model(
        run.spec.label,
        opened,
        text,
        recipe,
        folder=trained.folder,
        prompt=sample_prompt(recipe, text),
        seed=run.seed,
        trained=trained,
        tokenizer=tokenizer,
        epoch_tokens=len(context.encoded_corpus(tokenizer)[2]),
    )
    notes = filter(None, (budget_overrun(recipe, trained), result.note))
    result = replace(result, note="; ".join(notes) or None)
    update_model_card(trained.folder, replace(opened.card, bits_per_byte=result.bits_per_byte))
    durable.write_json(context.run_folder(run) / RESULT_FILE, result.to_json())
    return result


def sample_prompt(recipe: CompareRecipe, text: EvalText) -> str:
    """The prompt of the samples: the one that is given, else the beginning of the evaluation text; none where a line is
    a document.
    """
    if recipe.prompt is not None:
        return recipe.prompt
    return "" if recipe.data.lines else text.first_words()


def failed_result(run: PlannedRun, error: str) -> ModelResult:
    """The result of a model that could not be trained under the budget."""
    return ModelResult(model=run.spec.label, family=preset(run.spec.preset).family, seed=run.seed, error=error)


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
    for number, (label, opened) in enumerate(opened_models, 1):
        yield ModelProgress(label, number)
        if recipe.device != "auto":
            opened.model.to(resolve_device(recipe.device))
        run = RunFolder(Path(label))
        folder = run.model_folder if run.model_folder.is_dir() else run.path
        prompt = sample_prompt(recipe, text)
        yield ModelMeasured(measure_model(label, opened, text, recipe, folder=folder, prompt=prompt))


def interrupted_message(files: ResultFiles) -> str:
    """The message after Ctrl-C, with the command that resumes the comparison."""
    done = len([result for result in files.results if not result.error])
    if not files.recipe.models:
        return f"stopped with {done} of {files.planned} models measured"
    return (
        f"stopped with {done} of {files.planned} runs finished; "
        f"resume with: clearstory compare --resume --out {shlex.quote(str(files.folder))}"
    )
