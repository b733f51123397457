"""Size of a model for the time limit of its run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from clearstory.models.build import build
from clearstory.models.device import GPU_MATRIX_SIZE, matmul_gflops
from clearstory.models.families import family_of, scale_config
from clearstory.models.transformer.sizing import clear_config_by_non_embedding, non_embedding_parameters
from clearstory.models.transformer.sizing import parameter_count as count_on_paper
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.training.time_budget import (
    TimeBudget,
    context_for_budget,
    dropout_for_budget,
    dropout_of_translator,
    parameters_for_budget,
)
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import COMPUTE_DTYPES


def resolve_size(recipe: TrainRecipe, tokenizer: Tokenizer, dataset: TokenDataset, budget: TimeBudget) -> TrainRecipe:
    """The recipe with size, context and dropout of `clear`, or of `recall` for subwords, chosen by the time limit,
    where no size is given; with the dropout of `clear-translate`, at any size.
    """
    settings = recipe.training
    if recipe.init or recipe.time_limit is None:
        return recipe
    if recipe.model.name == "clear-translate":
        return resolve_dropout(recipe, tokenizer, dataset, budget)
    if recipe.parameters is not None:
        return recipe
    if recipe.model.family == "mixture":
        return resolve_experts_size(recipe, tokenizer, dataset, budget)
    if not recipe.model.is_sized_as_clear(tokenizer.vocab):
        return recipe
    seconds, flops_per_second, tokens = 0.9 * budget.remaining(), training_speed(settings), len(dataset.ids)
    flops_per_second /= settings.threads if budget.counts_cpu_time else 1
    overrides: dict[str, Any] = {}
    if not settings.context:
        overrides["context"] = context_for_budget(seconds, settings.device)
    target = parameters_for_budget(seconds, flops_per_second, tokens, dataset.text_bytes)
    shape = clear_config_by_non_embedding(target, tokenizer.vocab, settings.context or overrides["context"])
    overrides["dropout"] = dropout_for_budget(seconds, flops_per_second, non_embedding_parameters(shape), tokens)
    model = replace(recipe.model, overrides={**overrides, **recipe.model.overrides})
    return replace(recipe, model=model, parameters=count_on_paper(shape))


def resolve_dropout(
    recipe: TrainRecipe, tokenizer: Tokenizer, dataset: TokenDataset, budget: TimeBudget
) -> TrainRecipe:
    """The recipe of an encoder-decoder with the dropout for its number of epochs, unless a dropout is given."""
    settings = recipe.training
    config = recipe.model.config(vocab=tokenizer.vocab, context=settings.context, parameters=recipe.parameters)
    speed = training_speed(settings) / (settings.threads if budget.counts_cpu_time else 1)
    dropout = dropout_of_translator(0.9 * budget.remaining(), speed, count_on_paper(config), len(dataset.ids))
    model = replace(recipe.model, overrides={"dropout": dropout, **recipe.model.overrides})
    return replace(recipe, model=model)


def resolve_experts_size(
    recipe: TrainRecipe, tokenizer: Tokenizer, dataset: TokenDataset, budget: TimeBudget
) -> TrainRecipe:
    """The recipe of a mixture with context and size of its networks, each of which has an equal share of the time."""
    settings = recipe.training
    context = settings.context or context_for_budget(budget.remaining(), settings.device)
    settings = replace(settings, context=context)
    config = recipe.model.config(vocab=tokenizer.vocab, context=context)
    networks = [each for each in config.configs if family_of(each).scale is not None]
    recipe = replace(recipe, training=settings)
    if not networks:
        return recipe
    # Four fifths: the gate is fitted and the n-grams are counted in the rest.
    seconds, speed = 0.8 * budget.remaining() / len(networks), training_speed(settings)
    speed /= settings.threads if budget.counts_cpu_time else 1
    inner = parameters_for_budget(seconds, speed, len(dataset.ids), dataset.text_bytes)
    dropout = dropout_for_budget(seconds, speed, inner, len(dataset.ids))
    model = replace(recipe.model, overrides={"dropout": dropout, **recipe.model.overrides})
    if any(ModelChoice(name=name).is_sized_as_clear(tokenizer.vocab) for name in config.experts):
        shape = clear_config_by_non_embedding(inner, tokenizer.vocab, context)
        return replace(recipe, model=model, parameters=count_on_paper(shape))
    return replace(recipe, model=model, parameters=parameters_for_inner(networks[0], inner))


def parameters_for_inner(config: Any, inner: int) -> int:
    """Total number of parameters of a model whose parameters besides the embeddings are about `inner`.

    Embeddings are looked up and take no time, so a large vocabulary must not make the rest of the model smaller.
    """

    def inner_parameters(total: int) -> int:
        model: nn.Module = build(scale_config(config, total), device="meta")
        return sum(each.numel() for each in model.parameters() if config.vocab not in each.shape)

    totals = [round(inner * 1.25**power) for power in range(20)]
    return min(totals, key=lambda total: abs(math.log(max(1, inner_parameters(total)) / inner)))


def training_speed(settings: TrainingSettings) -> float:
    """FLOP/s that training reaches here: half of what matrix products alone reach, a third on a GPU."""
    dtype = COMPUTE_DTYPES[settings.precision] or torch.float32
    if settings.device.startswith("cuda"):
        return 0.33e9 * matmul_gflops(dtype, GPU_MATRIX_SIZE, device=settings.device)
    return 0.5e9 * matmul_gflops(dtype, threads=settings.threads)
