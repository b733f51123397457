"""Backbone: the model that is fine-tuned, opened from a folder or new, and the parts of it that are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting
from clearstory.formats.folders import open_model
from clearstory.formats.lora.adapters import weights_fingerprint
from clearstory.formats.model_card import ModelCard
from clearstory.formats.model_path import resolve_model_path
from clearstory.models.build import build, count_parameters
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.families import PRESETS
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.heads import backbone_of
from clearstory.models.layer_depths import freeze
from clearstory.models.lora import adapt
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.training.run_folder import RunFolder, check_same_initial_model
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.objectives.seq2seq import start_and_end_ids


@dataclass(frozen=True)
class Backbone:
    """A model to fine-tune.

    Args:
        model: the model, possibly with a head.
        tokenizer: its tokenizer.
        card: its model card.
        folder: its folder; None for a new model.
        fingerprint: hash of its weights; None for a new model.
        note: a sentence on its origin.
        generation_config: its generation config; None for a new model.
    """

    model: Any
    tokenizer: Tokenizer
    card: ModelCard
    folder: Path | None
    fingerprint: str | None
    note: str
    generation_config: GenerationConfig | None = None


def open_backbone(folder: RunFolder, recipe: FinetuneRecipe) -> Backbone:
    """The model that a recipe names. Raises BadInput for one without a tokenizer, BadSetting where the run would
    overwrite it, CheckpointMismatch where it has changed since a resumed run began.
    """
    if recipe.tokenizer is not None and recipe.model:
        raise BadSetting(
            f"tokenizer is {recipe.tokenizer}, but {recipe.model} is not a preset: a pre-trained model has its own "
            "tokenizer; leave it out"
        )
    if not recipe.model:
        raise BadSetting("there is no model to fine-tune; give a model folder, a run, or a preset such as bert-mini")
    path = expand_home(recipe.model)
    source = path if path.is_file() else resolve_model_path(path)
    if recipe.out is not None and recipe.overwrite and source.resolve().is_relative_to(recipe.out.resolve()):
        raise BadSetting(f"the run would overwrite its initial model {source}; choose another --out")
    opened = open_model(path)
    if has_capability(opened.model, Capability.CLASSIFIER) and has_capability(opened.model, Capability.COUNT_FITTED):
        raise BadInput(
            f"{source} is a baseline ({family_name(opened.model)}), which is fitted in one pass and cannot be trained "
            "further; give tfidf or ngram to fit it to other examples, or a pre-trained model"
        )
    if opened.tokenizer is None:
        raise BadInput(f"{source} has no tokenizer.json, so text cannot be tokenized; add the model's own")
    if recipe.lora.rank and (source / "adapter_config.json").is_file() and not (source / "config.json").is_file():
        raise BadSetting(
            f"{source} is an adapter, and adapters cannot be stacked; merge it first: clearstory convert {path} FOLDER"
        )
    fingerprint = weights_fingerprint(opened.model)
    if recipe.resume:
        check_same_initial_model(folder, fingerprint)
    note = f"{opened.model.config.summary}, from {path}"
    config = opened.generation_config
    return Backbone(opened.model, opened.tokenizer, opened.card, source.absolute(), fingerprint, note, config)


def is_new(recipe: FinetuneRecipe) -> bool:
    """Whether a recipe names a preset for a new model, and no file or folder."""
    return recipe.model in PRESETS and not recipe.names_path


def new_backbone(folder: RunFolder, recipe: FinetuneRecipe, texts: Iterable[str]) -> Backbone:
    """A new model of the preset that a recipe names, with a tokenizer trained on the texts of its examples."""
    if recipe.lora.rank or recipe.freeze != "0":
        name, value = ("lora.rank", recipe.lora.rank) if recipe.lora.rank else ("freeze", recipe.freeze)
        raise BadSetting(f"{name} is {value}, and {recipe.model} is a presetwith random weights; leave it out")
    choice = ModelChoice(name=recipe.model)
    if recipe.resume and folder.has_tokenizer:
        tokenizer = Tokenizer.open(folder.tokenizer_folder)
    else:
        lines = list(texts)
        size = 2 ** min(13, max(9, (sum(map(len, lines)) // 1000).bit_length() - 1))
        kind = "wordpiece" if choice.architecture == "encoder" else "bpe"
        tokenizer = train_tokenizer(recipe.tokenizer or f"{kind}:{size}", lines)
    config = choice.config(vocab=tokenizer.vocab)
    if choice.architecture == "encoder-decoder" and config.decoder_start_token_id is None:
        config = replace(config, decoder_start_token_id=start_and_end_ids(tokenizer)[0])
    model: Any = build(config, seed=recipe.training.seed)
    card = ModelCard(name=recipe.model, family=config.family, parameters=count_parameters(model))
    note = f"{config.summary}, a new {recipe.model} with random weights"
    return Backbone(model, tokenizer, card, None, None, note)


def select_trained(model: Any, recipe: FinetuneRecipe) -> nn.Module:
    """The model with LoRA adapters, with frozen layers, or unchanged, by the recipe; its head is always trained."""
    lora, seed = recipe.lora, recipe.training.seed
    if not lora.rank:
        layers: int | Literal["all"] = "all" if recipe.freeze == "all" else int(recipe.freeze)
        freeze(model, layers)
        return model  # type: ignore[no-any-return]  # a classifier
    adapted: nn.Module = adapt(
        model, lora.rank, lora.alpha, lora.targets, lora.dropout, modules_to_save=lora.modules_to_save, seed=seed
    )
    return adapted


def default_learning_rate(recipe: FinetuneRecipe, new: bool) -> float:
    """The peak learning rate where none is given."""
    return 1e-3 if new or recipe.lora.rank or recipe.freeze == "all" else 1e-4


def with_seeded_head(build_model: Any, backbone: nn.Module, seed: int) -> nn.Module:
    """The model that `build_model` builds from a backbone, with weights of a new head initialized with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = build_model(backbone)
    return model


def without_head(model: Any) -> Any:
    """The backbone of a model with a head; another model itself."""
    return backbone_of(model)
