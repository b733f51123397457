"""The initial model of a fine-tuning run: an existing model, trained as a whole or with LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.formats.folders import open_model
from clearstory.formats.lora.adapters import weights_fingerprint
from clearstory.formats.model_card import ModelCard
from clearstory.formats.model_path import resolve_model_path
from clearstory.models.build import count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.lora import adapt
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class InitialModel:
    """An existing model to fine-tune.

    Args:
        model: the model, with adapters if LoRA is used.
        tokenizer: its tokenizer.
        card: its model card.
        base_folder: folder of the frozen base model with LoRA; None if all weights are trained.
        fingerprint: hash of its weights.
        summary: description of its size.
        generation_config: its generation config, which the trained model keeps.
    """

    model: Any  # a LanguageModel or an Encoder
    tokenizer: Tokenizer
    card: ModelCard
    base_folder: Path | None
    fingerprint: str
    summary: str
    generation_config: GenerationConfig


def load_initial_model(recipe: TrainRecipe) -> InitialModel:
    """The model that `recipe.init` names, on the device of training, with LoRA adapters where lora.rank is set.

    Raises BadInput for a model without a tokenizer, CannotDo for one that is fitted by counting, BadSetting where the
    run would overwrite it.
    """
    assert recipe.init is not None
    path = expand_home(recipe.init)
    folder = resolve_model_path(path) if not path.is_file() else path
    out = recipe.out
    if out is not None and recipe.overwrite and folder.resolve().is_relative_to(out.resolve()):
        raise BadSetting(f"the run would overwrite its initial model {folder}; choose another --out")
    opened = open_model(path)
    if opened.tokenizer is None:
        raise BadInput(f"{folder} has no tokenizer.json, so text cannot be tokenized; add the model's own")
    model, config = opened.model, opened.model.config
    if has_capability(model, Capability.COUNT_FITTED):
        raise CannotDo(
            f"{folder} ({config.family}) was fitted by counting and cannot be fine-tuned; train a new one on both texts"
        )
    if has_capability(model, Capability.EXPERTS):
        raise CannotDo(
            f"{folder} is a mixture, whose n-grams and gate cannot be fine-tuned; train a new one on both texts"
        )
    if has_capability(model, Capability.CLASSIFIER):
        raise CannotDo(
            f"{folder} has a classification head and is not a language model; use clearstory finetune, or train its "
            "base model"
        )
    fingerprint = weights_fingerprint(model)
    model = model.to(recipe.training.device)
    parameters = count_parameters(model)
    if not recipe.lora.rank:
        summary, generation_config = f"{config.summary}, from {path}", opened.generation_config
        return InitialModel(model, opened.tokenizer, opened.card, None, fingerprint, summary, generation_config)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise BadSetting(
            f"{folder} is an adapter, and adapters cannot be stacked; merge it first: clearstory convert {path} FOLDER"
        )
    lora = recipe.lora
    model = adapt(
        model,
        lora.rank,
        lora.alpha,
        lora.targets,
        lora.dropout,
        modules_to_save=lora.modules_to_save,
        seed=recipe.training.seed,
    )
    summary = (
        f"{config.summary}, from {path}; {count_parameters(model) - parameters:,} LoRA parameters of rank {lora.rank}"
    )
    base_folder = folder.absolute()
    return InitialModel(
        model, opened.tokenizer, opened.card, base_folder, fingerprint, summary, opened.generation_config
    )
