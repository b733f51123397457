"""Starting: a run that begins with a model that is there: it goes on with all its weights, or learns beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.formats.lora.adapters import weights_fingerprint
from clearstory.formats.model_card import ModelCard
from clearstory.formats.folders import open_model
from clearstory.formats.model_path import resolve_model_path
from clearstory.models.families import count
from clearstory.models.lora import adapt
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class InitialModel:
    """What a run begins with.

    Args:
        model: what is trained: the model itself, or the model adapted.
        tokenizer: what it was taught with.
        card: what it was taught before.
        base: the folder of the model that rests; None where all of it learns.
        hash: of the weights it began with.
        shape: the model in words.
    """

    model: Any
    tokenizer: Tokenizer
    card: ModelCard
    base: Path | None
    hash: str
    shape: str


def start(recipe: TrainRecipe, device: str) -> InitialModel:
    """The model that `recipe.init` names, on `device`, ready to go on.

    Raises BadInput for one without a tokenizer, CannotDo for one that learns by counting, BadSetting where the run
    would overwrite what it begins with.
    """
    assert recipe.init is not None
    given = Path(recipe.init).expanduser()
    place = resolve_model_path(given) if not given.is_file() else given
    out = recipe.out
    if out is not None and recipe.overwrite and place.resolve().is_relative_to(out.resolve()):
        raise BadSetting(f"the run would overwrite {place}, which it begins with; choose another --out")
    opened = open_model(given)
    if opened.tokenizer is None:
        raise BadInput(f"{place} has no tokenizer.json, so text cannot become tokens; put the model's own there")
    model, config = opened.model, opened.model.config
    if getattr(model, "counted", False):
        raise CannotDo(
            f"{place} ({config.family}) has learnt by counting, and goes on with no text but its own; "
            "train a new one on both texts"
        )
    hash = weights_fingerprint(model)
    model = model.to(device)
    whole = count(model)
    if not recipe.lora.rank:
        return InitialModel(model, opened.tokenizer, opened.card, None, hash, f"{config.summary}, from {given}")
    if (place / "adapter_config.json").is_file() and not (place / "config.json").is_file():
        raise BadSetting(
            f"{place} is an adapter, and one adapter does not stand on another; merge it first: "
            f"clearstory convert {given} FOLDER"
        )
    s = recipe.lora
    model = adapt(model, s.rank, s.alpha, s.targets, s.dropout, seed=recipe.training.seed)
    learning = count(model) - whole
    shape = f"{config.summary}, from {given}; {learning:,} more learn beside them (LoRA of rank {s.rank})"
    return InitialModel(model, opened.tokenizer, opened.card, place.absolute(), hash, shape)
