"""Settings: the settings of `compare`, and the syntax in which its models are written. Imports no torch.

The syntax is `NAME[:KEY=VALUE...][@full][@TOKENIZER]`: ngram, ngram:order=3@words, clear@bpe:4096, gpt2@full.
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
from clearstory.recipes.settings.run_recipe import check_no_standard_input
from clearstory.recipes.settings.schema import (
    check_output_folder,
    flatten_keys,
    parse_float,
    parse_int,
    positional_setting,
    setting_table,
    to_plain,
)
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.text.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class CompareRecipe:
    """Settings of a comparison of several models on the same text.

    Args:
        sources: with --models: training text (files, folders, globs, corpora); without: models to evaluate.
        models: models to train, separated by commas: presets, optionally with settings (ngram:order=3) or a tokenizer
            (clear@bpe:4096); each is scaled to the budget, except with @full (gpt2@full), which keeps the published
            size.
        sizes: numbers of parameters of one model (clear, or the one in --models), which is trained on each of the
            amounts, to fit a scaling law that predicts the effect of more parameters and more text: at least three,
            such as 30k 100k 300k; or auto: four that fit into --cpu-seconds.
        amounts: amounts of training text for the scaling law, each read once: at least three fractions, such as 0.125
            0.25 0.5 1, or numbers of tokens; default: four, up to all of the text or what fits into --cpu-seconds.
        minutes: wall-clock time limit for training each model.
        cpu_seconds: CPU time limit for training each model, summed over all threads; with --sizes, for all runs
            together.
        parameters: approximate number of parameters of each model; without another budget, each model is trained for
            one epoch.
        one_epoch: train each model for one epoch, without a time limit.
        seeds: number of runs of each model with random initial weights.
        seed: first seed of models and samples.
        tokenizer: tokenizer of all models without their own: characters, bytes, words, bpe:8192, or a folder.
        text: evaluation text; default: the held-out part of the training text. Required without --models.
        windows: strided: overlapping windows in which every token has at least half a context before it; blocks:
            disjoint windows.
        prompt: prompt of the samples; default: the beginning of the evaluation text, or none with --data.lines.
        characters: length of the samples in characters, including the prompt.
        out: results folder; default: runs/compare- followed by date and time. Without other arguments, the results so
            far of the comparison in it are shown, which may still be running.
        resume: continue the comparison in the results folder; finished models are kept.
        overwrite: replace the comparison in the results folder.
        device: cpu, cuda, mps, or auto.
        threads: number of CPU threads; 0: one if CPU time is the budget, otherwise the fastest number.
        data: how files are read and split into documents.
    """

    sources: tuple[str, ...] = positional_setting("TEXT|MODEL", ())
    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    amounts: tuple[str, ...] = ()
    minutes: float | None = None
    cpu_seconds: float | None = None
    parameters: int | None = None
    one_epoch: bool = False
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
        check_output_folder(self.out)
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
        check_no_standard_input((*self.sources, *self.text))
        if self.resume and self.overwrite:
            raise BadSetting("resume continues a comparison and overwrite deletes it; give only one of them")
        if self.sizes or self.amounts:
            check_scaling(self)
            return
        given = [name for name, value in self.budgets.items() if value]
        if len([name for name in given if name != "parameters"]) > 1:
            raise BadSetting(f"{' and '.join(given)} are given, but a comparison has one budget; give only one of them")
        if not self.sources and (self.resume or self.out):
            return  # the saved settings have the rest, or the results so far are shown
        if not self.sources:
            raise BadSetting("TEXT is missing; give a text and --models, or model folders and --text")
        if self.models and not given:
            raise BadSetting(
                "there is no budget; give --minutes, --cpu-seconds, --parameters or --one-epoch, which applies to "
                "all models"
            )
        if not self.models and not self.text:
            raise BadSetting(
                f"there is nothing to compare {self.sources[0]} with; give --models to train on it, or --text if it "
                "is a model to evaluate"
            )
        if not self.models and (given or self.tokenizer or self.seeds > 1):
            raise BadSetting(
                f"{(given or ['tokenizer' if self.tokenizer else 'seeds'])[0]} is for training, but no --models are "
                "given; give some, or leave it out"
            )
        labels = [spec.label for spec in self.model_specs]
        if self.models and not labels:
            raise BadSetting("models is empty; give models separated by commas, such as ngram,lstm,clear")
        if duplicates := sorted({label for label in labels if labels.count(label) > 1}):
            raise BadSetting(f"models has {duplicates[0]} twice; --seeds trains each model several times")

    @property
    def budgets(self) -> dict[str, Any]:
        """The budgets by name. Besides `parameters`, only one of them is set."""
        return {name: getattr(self, name) for name in ("minutes", "cpu_seconds", "parameters", "one_epoch")}

    @property
    def model_specs(self) -> list[ModelSpec]:
        """The models to train."""
        words = [word.strip() for part in self.models for word in part.split(",")]
        return [parse_model_spec(word) for word in words if word]


LEAST = 3
"""Sizes and amounts of a scaling law: a power law with a constant has three coefficients."""


def check_scaling(recipe: CompareRecipe) -> None:
    """Raise BadSetting for a scaling law that cannot be fitted, and for settings that it does not have."""
    usual = {name: each.default for name, each in CompareRecipe.__dataclass_fields__.items()}
    if not recipe.sizes:
        raise BadSetting(f"amounts is {' '.join(recipe.amounts)}, but there are no sizes; give --sizes, such as auto")
    others = ("minutes", "parameters", "one_epoch", "text", "windows", "prompt", "characters")
    if changed := next((name for name in others if getattr(recipe, name) != usual[name]), None):
        raise BadSetting(
            f"{changed} does not apply with sizes: each model reads each amount once and is evaluated on the held-out "
            "part; leave it out"
        )
    if not recipe.sources and not (recipe.resume or recipe.out):
        raise BadSetting("TEXT is missing; give the training text of the scaling law")
    if len(recipe.model_specs) > 1:
        raise BadSetting(f"models has {len(recipe.model_specs)} models, but a scaling law is fitted to one; give one")
    check_amounts("sizes", recipe.sizes)
    check_amounts("amounts", recipe.amounts)
    if recipe.sizes == AUTO_SIZES and recipe.cpu_seconds is None:
        raise BadSetting("sizes is auto, but there is no budget to choose them for; give --cpu-seconds, or the sizes")


AUTO_SIZES = ("auto",)


def check_amounts(name: str, values: Sequence[str]) -> None:
    """Raise BadSetting for other than auto, or at least LEAST different numbers above 0."""
    if values in ((), AUTO_SIZES):
        return
    numbers = [parse_amount(value) for value in values]
    for value, number in zip(values, numbers, strict=True):
        whole = name == "sizes" or (number or 0) > 1
        if number is None or number <= 0 or (whole and number != int(number)):
            raise BadSetting(f"{name} has {value[:60]!r}; give numbers above 0 such as 300k, separated by spaces")
    if len(set(numbers)) < LEAST:
        raise BadSetting(
            f"{name} is {' '.join(values)}; a power law with a constant needs at least {LEAST} different values"
        )


def parse_amount(text: str) -> float | None:
    """A number such as 0.25, 100000 or 300k; None for anything else.

    >>> parse_amount("300k"), parse_amount("0.25"), parse_amount("many")
    (300000.0, 0.25, None)
    """
    whole = parse_int(text)
    return parse_float(text) if whole is None else float(whole)


@dataclass(frozen=True)
class ModelSpec:
    """One model of a comparison.

    Args:
        label: the model as it was written.
        preset: name of its preset.
        settings: its own settings, by the dotted keys of TrainRecipe.
        full_size: keep the published size of the preset instead of scaling it to the budget.
        tokenizer: its own tokenizer; None for the tokenizer of the comparison.
    """

    label: str
    preset: str
    settings: Mapping[str, Any]
    full_size: bool = False
    tokenizer: str | None = None

    @property
    def folder_name(self) -> str:
        """Name of its run folder."""
        return re.sub(r"[^\w.=-]+", "-", self.label).strip("-.") or "model"


def parse_model_spec(word: str) -> ModelSpec:
    """A model from the way it is written. Raises UnknownName for an unknown preset, BadSetting for other errors.

    >>> spec = parse_model_spec("ngram:order=3@words")
    >>> spec.preset, dict(spec.settings), spec.tokenizer
    ('ngram', {'model.order': '3'}, 'words')
    >>> parse_model_spec("gpt2@full@bpe:512")
    ModelSpec(label='gpt2@full@bpe:512', preset='gpt2', settings={}, full_size=True, tokenizer='bpe:512')
    """
    model, *marks = word.split("@")
    preset, *pairs = model.split(":")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise BadSetting(
                f"'{pair}' in the model '{word}' is not a setting; write {preset}:KEY=VALUE, or a tokenizer as "
                f"{preset}@{pair}"
            )
        settings[key if "." in key else f"model.{key}"] = value
    tokenizers = [mark for mark in marks if mark != "full"]
    if len(tokenizers) > 1 or "" in tokenizers:
        raise BadSetting(f"the model '{word}' names {len(tokenizers)} tokenizers; write {preset}@TOKENIZER")
    for key in settings:
        if not key.startswith(("model.", "training.")):
            raise BadSetting(f"'{key}' in the model '{word}' is not a setting of one model; set --{key} for all models")
    ModelChoice(name=preset)
    if build_train_recipe({"model": preset, **settings}).model.architecture == "encoder-decoder":
        raise BadSetting(
            f"{preset} is an encoder-decoder, but compare evaluates models on running text; leave it out, and compare "
            "encoder-decoders with clearstory evaluate"
        )
    return ModelSpec(word, preset, settings, "full" in marks, tokenizers[0] if tokenizers else None)


def describe_budget(recipe: CompareRecipe) -> str:
    """The budget of each model in words, such as "60 CPU seconds"."""
    parts = []
    if recipe.minutes is not None:
        parts.append(f"{recipe.minutes:g} minute{'s' * (recipe.minutes != 1)}")
    if recipe.cpu_seconds is not None:
        parts.append(f"{recipe.cpu_seconds:g} CPU seconds")
    if recipe.models and not parts:
        parts.append("one epoch")
    if recipe.parameters is not None:
        parts.append(f"about {recipe.parameters:,} parameters")
    return " and ".join(parts) or "already trained"


def source_names(sources: Sequence[str]) -> str:
    """File names of the sources, separated by commas; corpora by their full names."""
    return ", ".join(source if source.startswith("corpus:") else Path(source).name for source in sources)


def command_line(recipe: CompareRecipe) -> str:
    """The command line with which a comparison can be repeated."""
    settings, values = setting_table(CompareRecipe), flatten_keys(CompareRecipe, to_plain(recipe))
    words = ["clearstory", "compare", *recipe.sources]
    for key, setting in settings.items():
        value = values.get(key)
        if key in ("sources", "resume", "overwrite") or setting.default is MISSING:
            continue
        if value in (None, [], setting.default, False):
            continue
        name = f"--{key}" if "." in key else f"--{key.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [name] if value is True else [name, f"{each:g}" if isinstance(each, float) else str(each)]
    return shlex.join(words)
