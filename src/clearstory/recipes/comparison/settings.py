"""Comparing: what `compare` can be told, and how its models are written. Without torch.

NAME[:KEY=VALUE...][@full][@TOKENIZER]      ngram   ngram:order=3@words   clear@bpe:4096   gpt2@full
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import BadSetting
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import flatten_keys, to_plain, positional_setting, setting_table
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.text.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class CompareRecipe:
    """Several models on the same text, in bits per byte.

    Args:
        sources: with --models, text to learn from (files, folders, globs, corpora); without, the models to measure.
        models: what to train, with commas between: presets, with settings (ngram:order=3) or a tokenizer of their own
            (clear@bpe:4096); the budget sizes them, but for gpt2@full, which keeps its published size.
        minutes: time by the clock that each model gets, all in all.
        cpu_seconds: processor time that each model gets, all in all.
        parameters: about how many parameters each model has; with no other budget, each reads the text once.
        same_data: each model reads the text to learn from once, however long it takes.
        seeds: how many times each model is trained that is born with random numbers.
        seed: the first seed; of the models, and of the samples.
        tokenizer: one for all models that name none: characters, bytes, words, bpe:8192, or a folder that has one.
        text: what is foreseen; the held-out part of TEXT when not given. Models that are only measured need it.
        windows: strided, where windows overlap and a token has at least half a context before it; or blocks.
        prompt: how the samples begin; as the foreseen text does when not given.
        characters: how long the samples are, the beginning included.
        out: the folder of the results; runs/compare- and the date when not given.
        resume: go on with the comparison in the folder: models that are finished are kept.
        overwrite: replace the comparison that is in the folder.
        device: cpu, cuda, mps, or auto.
        threads: processor threads; 0 takes one where processor time is the budget, and else what is fastest.
        data: how files become documents.
    """

    sources: tuple[str, ...] = positional_setting("TEXT|MODEL", ())
    models: tuple[str, ...] = ()
    minutes: float | None = None
    cpu_seconds: float | None = None
    parameters: int | None = None
    same_data: bool = False
    seeds: int = 1
    seed: int = 0
    tokenizer: str | None = None
    text: tuple[str, ...] = ()
    windows: Literal["strided", "blocks"] = "strided"
    prompt: str | None = None
    characters: int = 400
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    threads: int = 0
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        for name in ("minutes", "cpu_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise BadSetting(f"{name} is {value:g}; it must be above 0")
        for name in ("parameters", "seeds", "characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise BadSetting(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.resume and self.overwrite:
            raise BadSetting("resume goes on with a comparison and overwrite throws it away; give one of them")
        said = [name for name, value in self.budgets.items() if value]
        if len([name for name in said if name != "parameters"]) > 1:
            raise BadSetting(f"{' and '.join(said)} are given; a comparison has one budget, give one of them")
        if self.resume and not self.sources:
            return  # the folder says the rest
        if not self.sources:
            raise BadSetting("TEXT is missing; name a text and --models, or the folders of models and --text")
        if self.models and not said:
            raise BadSetting(
                "there is no budget; give --minutes, --cpu-seconds, --parameters or --same-data, the same for all"
            )
        if not self.models and not self.text:
            raise BadSetting(
                f"there is nothing to compare {self.sources[0]} with; give --models to train on it, or --text where it "
                "is a model to be measured"
            )
        if not self.models and (said or self.tokenizer or self.seeds > 1):
            raise BadSetting(
                f"{(said or ['tokenizer' if self.tokenizer else 'seeds'])[0]} is for training, and no --models are "
                "given; name some, or leave it out"
            )
        labels = [entry.label for entry in self.entries]
        if self.models and not labels:
            raise BadSetting("models names none; write some with commas between, such as ngram,lstm,clear")
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise BadSetting(f"models has {twice[0]} twice; --seeds trains each model several times")

    @property
    def budgets(self) -> dict[str, Any]:
        """The budgets under their names; one of them, besides parameters, is given."""
        return {name: getattr(self, name) for name in ("minutes", "cpu_seconds", "parameters", "same_data")}

    @property
    def entries(self) -> list[Entry]:
        """What is to be trained."""
        words = [word.strip() for part in self.models for word in part.split(",")]
        return [parse(word) for word in words if word]


@dataclass(frozen=True)
class Entry:
    """One model of a comparison, as it was written.

    `settings` are its own, under the keys of TrainRecipe; `full`: it keeps the size of its preset.
    """

    label: str
    name: str
    settings: Mapping[str, Any]
    full: bool = False
    tokenizer: str | None = None

    @property
    def folder(self) -> str:
        """A name for its run folder."""
        return re.sub(r"[^\w.=-]+", "-", self.label).strip("-.") or "model"


def parse(word: str) -> Entry:
    """A model from the way it is written. Raises UnknownName and BadSetting for what there is not.

    >>> entry = parse("ngram:order=3@words")
    >>> entry.name, dict(entry.settings), entry.tokenizer
    ('ngram', {'model.order': '3'}, 'words')
    >>> parse("gpt2@full@bpe:512")
    Entry(label='gpt2@full@bpe:512', name='gpt2', settings={}, full=True, tokenizer='bpe:512')
    """
    model, *marks = word.split("@")
    name, *pairs = model.split(":")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise BadSetting(
                f"'{pair}' in the model '{word}' is no setting; write {name}:KEY=VALUE, or a tokenizer as {name}@{pair}"
            )
        settings[key if "." in key else f"model.{key}"] = value
    full = "full" in marks
    tokenizers = [mark for mark in marks if mark != "full"]
    if len(tokenizers) > 1 or "" in tokenizers:
        raise BadSetting(f"the model '{word}' names {len(tokenizers)} tokenizers; write {name}@TOKENIZER")
    for key in settings:
        if not key.startswith(("model.", "training.")):
            raise BadSetting(f"'{key}' in the model '{word}' is not its own; set --{key} for all models")
    ModelChoice(name=name)
    if build_train_recipe({"model": name, **settings}).model.architecture == "encoder-decoder":
        raise BadSetting(
            f"{name} makes a text of another, and models are compared by how they foresee running text; leave it out, "
            "and hold encoder-decoders against each other with clearstory evaluate"
        )
    return Entry(word, name, settings, full, tokenizers[0] if tokenizers else None)


def budget(recipe: CompareRecipe) -> str:
    """What each model is given, in words."""
    parts = []
    if recipe.minutes is not None:
        parts.append(f"{recipe.minutes:g} minute{'s' * (recipe.minutes != 1)}")
    if recipe.cpu_seconds is not None:
        parts.append(f"{recipe.cpu_seconds:g} seconds of the processor")
    if recipe.models and not parts:
        parts.append("one pass over the text")
    if recipe.parameters is not None:
        parts.append(f"about {recipe.parameters:,} parameters")
    return " and ".join(parts) or "trained before"


def names(sources: Sequence[str]) -> str:
    """Texts by their names."""
    return ", ".join(source if source.startswith("corpus:") else Path(source).name for source in sources)


def command(recipe: CompareRecipe) -> str:
    """The command line that says the same."""
    known, values = setting_table(CompareRecipe), flatten_keys(CompareRecipe, to_plain(recipe))
    words = ["clearstory", "compare", *recipe.sources]
    for key, row in known.items():
        value = values.get(key)
        if (
            key in ("sources", "resume", "overwrite")
            or value in (None, [], row.default, False)
            or row.default is MISSING
        ):
            continue
        name = f"--{key}" if "." in key else f"--{key.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [name] if value is True else [name, f"{each:g}" if isinstance(each, float) else str(each)]
    return shlex.join(words)
