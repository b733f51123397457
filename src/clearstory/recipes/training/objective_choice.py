"""Aims: which objective a run follows, and whether its model has what that asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from clearstory.errors import BadSetting
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.text.documents import is_parallel
from clearstory.training.objectives.table import OBJECTIVES, choose


def aimed(recipe: TrainRecipe, begun: Any = None) -> TrainRecipe:
    """The recipe with its objective decided, for a preset or for a model that is there already, and with it whether the
    text is taken as pairs: where that is said, where the objective is rewrite, or, for an encoder-decoder, where its
    files look so.

    Raises BadSetting for an objective that does not teach models of this kind, or learns from other text.
    """
    kind = recipe.model.architecture if begun is None else getattr(begun.config, "architecture", "decoder")
    pairs = recipe.data.pairs or recipe.objective == "rewrite"
    if kind == "encoder-decoder" and not pairs:
        pairs = is_parallel(recipe.text, recipe.data)
    recipe = replace(recipe, objective=cast(Any, choose(recipe.objective, kind, pairs)))
    aim = OBJECTIVES[recipe.objective]
    recipe = replace(recipe, data=replace(recipe.data, pairs=aim.pairs))
    if recipe.training.label_smoothing and not aim.writes:
        able = " and ".join(each for each, entry in OBJECTIVES.items() if entry.writes)
        raise BadSetting(
            f"training.label_smoothing is {recipe.training.label_smoothing:g} and the objective {recipe.objective}, "
            f"which has none; it is for {able}"
        )
    if aim.masks and recipe.training.sample_steps:
        raise BadSetting(
            f"training.sample_steps is {recipe.training.sample_steps}, and an encoder does not write; leave it out, "
            "and ask the finished model with: clearstory fill-mask"
        )
    if begun is None and recipe.model.overrides.get("labels"):
        raise BadSetting(
            f"model.labels are what a head tells, and the objective {recipe.objective} teaches none; leave them out"
        )
    if begun is None and aim.masks and not aim.sentences:
        # A head that is never asked would stay as it was born.
        recipe = replace(recipe, model=replace(recipe.model, overrides={"pooler": False, **recipe.model.overrides}))
    return recipe


def check_heads(recipe: TrainRecipe, config: Any) -> None:
    """Raises BadSetting for a model without the heads that its objective asks."""
    aim, given = OBJECTIVES[recipe.objective], recipe.init or recipe.model.name
    if aim.masks and not config.mlm_transform:
        way = "set model.mlm_transform and model.unembed_bias to true"
        if recipe.init:
            way = "choose one that tells a [MASK], or train a new one: --model bert-mini"
        raise BadSetting(f"objective is {recipe.objective}, and {given} has no head for words; {way}")
    if aim.sentences and not config.pooler:
        way = "set model.pooler to true, or objective to masked"
        if recipe.init:
            way = "set objective to masked, or train a new one: --model bert-mini"
        raise BadSetting(
            f"objective is {recipe.objective}, and {given} has no head that says whether a sentence follows another; "
            f"{way}"
        )
