"""Scaling runs: which sizes are trained on which amounts of text, and the training of each of them.

Every run reads its amount once, with a learning rate schedule that ends with the run (Hoffmann et al. 2022, approach
3), in batches of the same size, and is evaluated on the same held-out tokens.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from clearstory.errors import BadSetting, CannotDo
from clearstory.models.build import build, count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.families import family_of
from clearstory.recipes.comparison.leaderboard import ModelResult
from clearstory.recipes.comparison.model_run import TrainingContext
from clearstory.recipes.comparison.settings import (
    AUTO_SIZES,
    LEAST,
    CompareRecipe,
    ModelSpec,
    parse_amount,
    parse_model_spec,
)
from clearstory.recipes.settings.schema import to_plain
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.corpus_preparation import ALIGNED_CORPORA
from clearstory.recipes.training.events import TrainingResult
from clearstory.recipes.training.model_size import training_speed
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.trainer import training_context

DEFAULT_MODEL = "clear"

CONTEXT = 128
"""Default context of a Transformer: the law describes losses with at most this many tokens of context."""

LEAST_STEPS = 100
"""Steps of the smallest amount: batches are made so small."""

AMOUNT_RATIO, SIZE_RATIO = 2, 3
"""Ratios of neighbouring amounts and sizes where they are not given."""

CHOSEN = 4
"""Number of amounts and of sizes where they are not given."""

TOKENS_PER_PARAMETER = 10
"""Of the largest run, where sizes and amounts are not given."""

EVALUATION_TOKENS = 4096
"""Of the evaluation after the last step, which saves the model; its loss is measured after that on more."""

EFFICIENCY = 0.2
"""Share of the training speed of large models that these small ones reach, start-up included."""


@dataclass(frozen=True)
class ScalingPlan:
    """The runs of a scaling law, the cheapest first.

    Args:
        spec: the model.
        sizes: approximate numbers of parameters.
        amounts: numbers of training tokens.
        seeds: seeds of each.
        batch_size: sequences in a batch.
        window: tokens of a sequence.
    """

    spec: ModelSpec
    sizes: tuple[int, ...]
    amounts: tuple[int, ...]
    seeds: tuple[int, ...]
    batch_size: int
    window: int

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """(size, amount, seed) of each run."""
        return sorted(product(self.sizes, self.amounts, self.seeds), key=lambda run: (run[0] * run[1], run))

    def steps(self, amount: int) -> int:
        """Optimizer steps that read this amount once."""
        return max(1, round(amount / (self.batch_size * self.window)))

    def label(self, size: int, amount: int, seed: int) -> str:
        """The name of a run, as it is shown."""
        seeds = f", seed {seed}" if len(self.seeds) > 1 else ""
        return f"{self.spec.label}, about {size:,} parameters, {amount:,} tokens{seeds}"


def plan_scaling(context: TrainingContext) -> ScalingPlan:
    """The runs of a recipe. Raises CannotDo for a model that cannot be scaled, BadSetting for amounts that the text
    does not have and for a budget that is too small.
    """
    recipe = context.recipe
    spec = (recipe.model_specs or [parse_model_spec(DEFAULT_MODEL)])[0]
    _, tokenizer, dataset = context.encoded_corpus(context.tokenizer_spec(spec))
    check_scales(spec, tokenizer)
    amounts, sizes = given_amounts(recipe, dataset), given_sizes(recipe)
    if sizes is None:
        sizes, amounts = affordable(context, spec, tokenizer, len(dataset), amounts)
    if amounts is None:
        amounts = halves(len(dataset))
    check_distinct(spec, tokenizer, sizes)
    settings = build_train_recipe({"model": spec.preset, **spec.settings}).training
    window, batch_size = window_of(spec, tokenizer, dataset), settings.batch_size
    if "training.batch_size" not in spec.settings:
        batch_size = max(1, min(batch_size, min(amounts) // (LEAST_STEPS * window)))
    seeds = tuple(range(recipe.seed, recipe.seed + recipe.seeds))
    return ScalingPlan(spec, sizes, amounts, seeds, batch_size, window)


def check_scales(spec: ModelSpec, tokenizer: Tokenizer) -> None:
    """Raise CannotDo for a model without a likelihood of text, without a scalable size, or fitted by counting."""
    config: Any = build_train_recipe({"model": spec.preset, **spec.settings}).model.config(vocab=tokenizer.vocab)
    model = build(config, device="meta")
    counted = has_capability(model, Capability.COUNT_FITTED)
    reason = "" if has_capability(model, Capability.CAUSAL) else "does not predict the next token"
    if family_of(config).scale is None or counted or spec.full_size:
        reason = "has no adjustable size"
    if reason:
        raise CannotDo(
            f"{spec.label} {reason}, so no scaling law can be fitted; give a network, such as --models clear"
        )


def check_distinct(spec: ModelSpec, tokenizer: Tokenizer, sizes: tuple[int, ...]) -> None:
    """Raise BadSetting for two sizes that give the same model, and for one that no model comes near."""
    found: dict[int, int] = {}
    for size in sizes:
        actual = actual_size(spec, tokenizer, size)
        if not 0.5 < actual / size < 2:
            raise BadSetting(
                f"sizes has {size:,}, and the nearest {spec.label} with {tokenizer.vocab:,} tokens has {actual:,} "
                "parameters; give another size, or a smaller --tokenizer such as characters"
            )
        if actual in found:
            raise BadSetting(
                f"sizes has {found[actual]:,} and {size:,}, but the nearest {spec.label} to both has {actual:,} "
                "parameters; give sizes that are further apart, or larger"
            )
        found[actual] = size


def actual_size(spec: ModelSpec, tokenizer: Tokenizer, size: int) -> int:
    """The number of parameters of the model that is nearest to a size."""
    settings = {"model": spec.preset, **context_settings(spec, tokenizer)}
    config = build_train_recipe(settings).model.config(vocab=tokenizer.vocab, parameters=size)
    return count_parameters(build(config, device="meta"))


def given_sizes(recipe: CompareRecipe) -> tuple[int, ...] | None:
    """The sizes of a recipe, ascending; None if they are to be chosen."""
    if recipe.sizes == AUTO_SIZES:
        return None
    return tuple(sorted({int(parse_amount(each) or 0) for each in recipe.sizes}))


def given_amounts(recipe: CompareRecipe, dataset: TokenDataset) -> tuple[int, ...] | None:
    """The amounts of a recipe in tokens, ascending; None if they are to be chosen."""
    if recipe.amounts in ((), AUTO_SIZES):
        return None
    numbers = [parse_amount(each) or 0.0 for each in recipe.amounts]
    tokens = sorted({round(each * len(dataset)) if each <= 1 else int(each) for each in numbers})
    if tokens[-1] > len(dataset):
        raise BadSetting(
            f"amounts has {tokens[-1]:,} tokens, and the training text has {len(dataset):,}, each of which is read "
            "once; give at most that many, or more text"
        )
    return tuple(tokens)


def halves(largest: int) -> tuple[int, ...]:
    """An amount, its half, quarter and eighth, ascending."""
    return tuple(largest // AMOUNT_RATIO**power for power in reversed(range(CHOSEN)))


def affordable(
    context: TrainingContext, spec: ModelSpec, tokenizer: Tokenizer, tokens: int, amounts: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and amounts whose runs fit into the CPU time together; given amounts are kept.

    A run takes about 6 floating-point operations for each parameter and token (Kaplan et al. 2020, section 2.1).
    """
    recipe = context.recipe
    assert recipe.cpu_seconds is not None, "checked with the settings"
    per_thread = training_speed(context.hardware) / context.hardware.threads
    # N · D of all runs together: the sum of sizes times the sum of amounts.
    total = EFFICIENCY * per_thread * recipe.cpu_seconds / 6 / recipe.seeds
    size_factor = sum(SIZE_RATIO**-power for power in range(CHOSEN))
    if amounts is None:
        amount_factor = sum(AMOUNT_RATIO**-power for power in range(CHOSEN))
        largest = (total / size_factor / amount_factor * TOKENS_PER_PARAMETER) ** 0.5
        amounts = halves(min(tokens, int(largest)))
    top, bottom = total / sum(amounts) / size_factor, smallest_size(spec, tokenizer)
    ratio = min(float(SIZE_RATIO), (top / bottom) ** (1 / (CHOSEN - 1)))
    if ratio < AMOUNT_RATIO:
        needed = recipe.cpu_seconds * bottom * AMOUNT_RATIO ** (CHOSEN - 1) / top
        raise BadSetting(
            f"cpu_seconds is {recipe.cpu_seconds:g}, in which {CHOSEN} sizes from {bottom:,} parameters on, the "
            f"smallest with {tokenizer.vocab:,} tokens, are not trained; give about {needed:,.0f}, a smaller "
            "--tokenizer such as characters, or less with --amounts"
        )
    return tuple(rounded(top / ratio**power) for power in reversed(range(CHOSEN))), amounts


def rounded(size: float) -> int:
    """A size with two significant digits."""
    return int(float(f"{size:.1e}"))


def smallest_size(spec: ModelSpec, tokenizer: Tokenizer) -> int:
    """The number of parameters of the smallest model of a preset with this vocabulary."""
    for power in range(25):
        target = round(2000 * 1.5**power)
        with suppress(BadSetting):
            if actual_size(spec, tokenizer, target) < 1.25 * target:
                return target
    raise CannotDo(f"no size of {spec.label} was found for {tokenizer.vocab:,} tokens; give sizes with --sizes")


def window_of(spec: ModelSpec, tokenizer: Tokenizer, dataset: TokenDataset) -> int:
    """Tokens of a training sequence."""
    recipe = build_train_recipe({"model": spec.preset, **context_settings(spec, tokenizer)})
    model = build(recipe.model.config(vocab=tokenizer.vocab, context=recipe.training.context), device="meta")
    return training_context(model, dataset, recipe.training)


def context_settings(spec: ModelSpec, tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings of a model with the context of scaling runs, where it has one and sets none."""
    config = build_train_recipe({"model": spec.preset, **spec.settings}).model.config(vocab=tokenizer.vocab)
    is_set = any(key in spec.settings for key in ("model.context", "training.context"))
    has_context = has_capability(build(config, device="meta"), Capability.ATTENTION)
    return {**({"model.context": CONTEXT} if has_context and not is_set else {}), **spec.settings}


def run_path(context: TrainingContext, plan: ScalingPlan, size: int, amount: int, seed: int) -> Path:
    """The folder of a run."""
    return context.folder / f"{plan.spec.folder_name}-{size}-{amount}-seed{seed}"


def scaling_recipe(context: TrainingContext, plan: ScalingPlan, size: int, amount: int, seed: int) -> TrainRecipe:
    """The recipe that trains one run; the saved one if it has been started before."""
    recipe, spec, out = context.recipe, plan.spec, run_path(context, plan, size, amount, seed)
    if RunFolder(out).exists:
        saved = build_train_recipe(read_yaml(RunFolder(out).config_file))
        if (saved.steps, saved.training.batch_size) == (plan.steps(amount), plan.batch_size):
            return replace(saved, out=out, resume=True, overwrite=False)
    folder, tokenizer, _ = context.encoded_corpus(context.tokenizer_spec(spec))
    values = {
        "text": recipe.sources,
        "model": spec.preset,
        "tokenizer": str(folder),
        "parameters": size,
        "out": str(out),
        "overwrite": True,
        "steps": plan.steps(amount),
        "training.seed": seed,
        "training.device": context.hardware.device,
        "training.threads": context.hardware.threads,
        "training.align_documents": context.corpus.name in ALIGNED_CORPORA,
        "training.weight_checkpoints": 0,
        # One evaluation, at the end: the best of several models would be better than its amount of text.
        "training.eval_steps": plan.steps(amount),
        "training.eval_tokens": EVALUATION_TOKENS,
        "training.compile": "off",
        "data": to_plain(recipe.data),
        **context_settings(spec, tokenizer),
        "training.batch_size": plan.batch_size,
    }
    return build_train_recipe(values)


def scaling_result(
    context: TrainingContext, plan: ScalingPlan, size: int, amount: int, seed: int, trained: TrainingResult
) -> ModelResult:
    """The result of a finished run. Raises CannotDo if there is no bits per byte."""
    if trained.bits_per_byte is None:
        raise CannotDo(
            f"{plan.spec.label} with the tokenizer {context.tokenizer_spec(plan.spec)} has no bits per byte on this "
            "text, which the law is fitted to; choose another --tokenizer, such as characters"
        )
    _, tokenizer, dataset = context.encoded_corpus(context.tokenizer_spec(plan.spec))
    return ModelResult(
        model=plan.label(size, amount, seed),
        family=plan.spec.preset,
        seed=seed,
        tokenizer=context.tokenizer_spec(plan.spec),
        vocab=tokenizer.vocab,
        parameters=trained.parameters,
        cpu_seconds=trained.cpu_seconds,
        seconds=trained.seconds,
        tokens=trained.tokens,
        steps=trained.steps,
        epochs=trained.tokens / len(dataset),
        bits_per_byte=trained.bits_per_byte,
        nats_per_token=trained.nats_per_token,
        folder=trained.folder,
    )


def check_enough(results: list[ModelResult], plan: ScalingPlan, spent: float) -> None:
    """Raise BadSetting if too few runs are finished to fit a law."""
    done = [each for each in results if each.bits_per_byte is not None]
    sizes, amounts = len({each.parameters for each in done}), len({each.tokens for each in done})
    if min(sizes, amounts) < LEAST or len(done) < 2 * LEAST:
        raise BadSetting(
            f"{len(done)} of {len(plan.runs)} runs are finished after {spent:,.0f} CPU seconds, of {sizes} sizes and "
            f"{amounts} amounts; a law needs at least {LEAST} of each: use --resume with a larger --cpu-seconds"
        )
