"""Compare: several models on the same text under the same budget, the ladder of the house.

text ─► tokenizers ─► (train ─► measure ─► write)* ─► rungs ─► compare.json · report.html · curves.svg
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clearstory import __version__, durable
from clearstory.errors import BadInput, BadSetting, CannotDo, Diverged
from clearstory.formats.folders import OpenedModel, open_model, update_model_card
from clearstory.lens.rendering.render import save
from clearstory.models.device import resolve_device
from clearstory.models.families import preset
from clearstory.recipes.comparison.settings import CompareRecipe, Entry, budget, command, names
from clearstory.recipes.comparison.output_folder import MEASURED, begin, finished_before, write_down
from clearstory.recipes.training.events import TrainingEvent, TrainingResult
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.comparison.leaderboard import Ladder, Trial, pairs, rungs
from clearstory.evaluation.units import EvalText
from clearstory.recipes.comparison.report import curves, html
from clearstory.recipes.training.run_folder import RunFolder, processor_name
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.comparison.model_run import Ground, born_by_chance, tried
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents


@dataclass(frozen=True)
class Begun:
    """The text is read, and it is known what will be tried."""

    text: str
    bytes: int
    unit: str
    budget: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Trying:
    """News of one model: that its turn has come (None), how it trains, or how far it is measured (done, whole)."""

    model: str
    news: TrainingEvent | tuple[int, int] | None = None


@dataclass(frozen=True)
class Tried:
    """One model is measured; `kept` when it had been before this call."""

    trial: Trial
    kept: bool = False


Told = Begun | Trying | Tried | Ladder
"""What a comparison tells; the last is the Ladder."""


def compare(*sources: str | Path, **settings: Any) -> Ladder:
    """Which model foresees a text best under one budget, in bits per byte.

    `settings` are those of CompareRecipe; see `clearstory compare --help`. With `models`, `sources` is the text to
    learn from; without, it is models, and `text` what they are measured on.

    >>> import clearstory
    >>> clearstory.compare("corpus:kjv", models=("ngram", "clear"), cpu_seconds=60).rungs[0]  # doctest: +SKIP
    """
    ladder = None
    for told in compare_events(build_settings(CompareRecipe, {"sources": tuple(map(str, sources)), **settings})):
        ladder = told
    assert isinstance(ladder, Ladder)
    return ladder


def compare_events(recipe: CompareRecipe) -> Iterator[Told]:
    """The comparison, telling what happens; the last item is the Ladder, whose files are written by then.

    Ctrl-C raises KeyboardInterrupt; what is finished stays, and so does a checkpoint of what is not.
    """
    folder, recipe = begin(recipe)
    trials: list[Trial] = []
    try:
        if recipe.models:
            corpus = Corpus.open(recipe.sources, recipe.data)
            held = held_out(recipe, corpus)
            yield Begun(held.name, held.bytes, held.unit, budget(recipe), tuple(e.label for e in recipe.entries))
            write_down(folder, recipe)
            for told in train_all(Ground(recipe, folder, corpus), held):
                if isinstance(told, Tried):
                    trials.append(told.trial)
                yield told
        else:
            held = EvalText.of(names(recipe.text), read_documents(recipe.text, recipe.data))
            yield Begun(held.name, held.bytes, held.unit, budget(recipe), recipe.sources)
            write_down(folder, recipe)
            for told in measure_all(recipe, held):
                if isinstance(told, Tried):
                    trials.append(told.trial)
                yield told
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stopped(recipe, folder, trials)) from None
    if all(trial.failed for trial in trials):
        raise BadSetting(f"no model could be compared; of {trials[0].model}: {trials[0].failed}")
    yield finish(recipe, folder, held, trials)


def held_out(recipe: CompareRecipe, corpus: Corpus) -> EvalText:
    """What is foreseen: the text that is named, else what the corpus holds out."""
    if recipe.text:
        return EvalText.of(names(recipe.text), read_documents(recipe.text, recipe.data))
    held = EvalText.of(f"the held-out part of {corpus.name}", corpus.documents("validation"), corpus.size > 1)
    if not held.bytes:
        raise BadSetting("nothing is held out to measure on; give --data.validation a share such as 0.1, or --text")
    return held


def train_all(ground: Ground, held: EvalText) -> Iterator[Trying | Tried]:
    """Every model of a comparison under its budget, one after the other: each has the machine to itself."""
    recipe = ground.recipe
    prompt = recipe.prompt if recipe.prompt is not None else held.beginning()
    for entry in recipe.entries:
        for number in range(recipe.seeds):
            seed = recipe.seed + number
            out = ground.run_folder(entry, seed)
            if (kept := finished_before(out)) is not None:
                yield Tried(kept, kept=True)
                continue
            yield Trying(entry.label)
            try:
                settings = ground.training(entry, seed)
                spec = ground.tokenizer_of(entry)
                _, tokenizer, rows = ground.tokens(spec)
                finished = None
                for event in train_events(settings, closing=False):
                    finished = event
                    yield Trying(entry.label, event)
                assert isinstance(finished, TrainingResult)
            except (BadInput, BadSetting, CannotDo, Diverged) as reason:
                # Kept nowhere: a comparison that goes on tries again.
                yield Tried(failed(entry, seed, str(reason)))
                break
            opened = open_model(finished.folder)
            yield Trying(entry.label, (0, 1))
            trial = tried(
                entry.label, opened, held, recipe, folder=finished.folder, prompt=prompt, seed=seed,
                finished=finished, tokenizer=spec, tokens=len(rows),
            )  # fmt: skip
            trial = replace(trial, note="; ".join(filter(None, (beyond(recipe, finished), trial.note))) or None)
            update_model_card(finished.folder, replace(opened.card, bits_per_byte=trial.bits_per_byte))
            durable.write_json(out / MEASURED, trial.to_json())
            yield Tried(trial)
            if not born_by_chance(settings, tokenizer):
                break  # another seed would make the same model


def failed(entry: Entry, seed: int, reason: str) -> Trial:
    """A model that could not be trained under the budget."""
    return Trial(model=entry.label, family=preset(entry.name).family, seed=seed, failed=reason)


def beyond(recipe: CompareRecipe, finished: TrainingResult) -> str | None:
    """What a model took that needs more than the budget."""
    if recipe.cpu_seconds is not None and finished.cpu_seconds > 1.1 * recipe.cpu_seconds + 1:
        return f"took {finished.cpu_seconds:.0f} seconds of the processor, of {recipe.cpu_seconds:g}"
    if recipe.minutes is not None and finished.seconds > 66 * recipe.minutes + 1:
        return f"took {finished.seconds / 60:.1f} minutes, of {recipe.minutes:g}"
    return None


def measure_all(recipe: CompareRecipe, held: EvalText) -> Iterator[Trying | Tried]:
    """Models that were trained before, on one text."""
    prompt = recipe.prompt if recipe.prompt is not None else held.beginning()
    # All of them first: a wrong name must not come to light after minutes of measuring.
    found: list[tuple[str, OpenedModel]] = [(source, open_model(source)) for source in recipe.sources]
    for label, opened in found:
        yield Trying(label)
        if recipe.device != "auto":
            opened.model.to(resolve_device(recipe.device))
        folder = Path(label)
        folder = RunFolder(folder).model_folder if RunFolder(folder).model_folder.is_dir() else folder
        yield Tried(tried(label, opened, held, recipe, folder=folder, prompt=prompt))


def finish(recipe: CompareRecipe, folder: Path, held: EvalText, trials: Sequence[Trial]) -> Ladder:
    """The ladder, and its files."""
    found = rungs(trials, held.sizes)
    ladder = Ladder(
        text=held.name,
        bytes=held.bytes,
        unit=held.unit,
        units=len(held.ends),
        learnt=names(recipe.sources) if recipe.models else None,
        budget=budget(recipe),
        prompt=recipe.prompt if recipe.prompt is not None else held.beginning(),
        rungs=found,
        pairs=pairs(found, held.sizes),
        command=command(recipe),
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
    durable.write_json(folder / "compare.json", ladder.to_json())
    view = curves(ladder)
    if view.lines:
        save(view, folder / "curves.svg")
    durable.write_text(folder / "report.html", html(ladder))
    return ladder


def stopped(recipe: CompareRecipe, folder: Path, trials: Sequence[Trial]) -> str:
    """What is said after Ctrl-C."""
    done = len({trial.model for trial in trials if not trial.failed})
    if not recipe.models:
        return f"stopped with {done} of {len(recipe.sources)} models measured"
    return (
        f"stopped with {done} of {len(recipe.entries)} models finished; "
        f"go on with: clearstory compare --resume --out {shlex.quote(str(folder))}"
    )
