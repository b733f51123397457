"""The stages before the first step: settings, corpus, tokenizer, dataset, model and trainer of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch

from clearstory.errors import BadSetting
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenSequences
from clearstory.models.build import build, count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.device import bf16_is_fast, fastest_thread_count, resolve_device
from clearstory.models.lora import remove_lora
from clearstory.models.matmul.backend import resolve_backend
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.recipes.inference.evaluate_text import lossy_tokenizer_reason
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.recipes.settings.training_presets import expert_settings, scale_learning_rates
from clearstory.recipes.training.corpus_preparation import is_resumed, learns_tags, tokenizer_spec
from clearstory.recipes.training.events import RunPrepared
from clearstory.recipes.training.initial_model import InitialModel
from clearstory.recipes.training.run_folder import RunFolder, check_same_initial_model
from clearstory.recipes.training.tagged_text import add_tags
from clearstory.recipes.training.training_run import DEFAULT_STEPS
from clearstory.recipes.training.validation import ValidationSplit
from clearstory.text.aligned_files import equal_lines_note
from clearstory.text.corpus import Corpus
from clearstory.text.documents import check_no_labels, is_parallel
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.base import BaseTrainer
from clearstory.training.count_trainer import CountTrainer
from clearstory.training.mixture_trainer import MixtureTrainer
from clearstory.training.objectives import table
from clearstory.training.objectives.base import Objective
from clearstory.training.objectives.table import OBJECTIVES, objective_spec
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer


def resolve_settings(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with device, precision and number of threads chosen for this machine. Sets torch's threads."""
    return replace(recipe, training=resolve_for_machine(recipe.training))


def resolve_for_machine(settings: TrainingSettings) -> TrainingSettings:
    """The settings with device, precision and number of threads chosen for this machine. Sets torch's threads."""
    device = resolve_device(settings.device, "training.device")
    # With a GPU the number of threads matters little, and is not measured.
    torch.set_num_threads(settings.threads or (fastest_thread_count() if device == "cpu" else torch.get_num_threads()))
    precision = settings.precision
    if precision == "auto":
        fast = bf16_is_fast() if device == "cpu" else device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bf16" if fast else "fp32"
    matmul = resolve_backend(settings.matmul if device == "cpu" else "mkl", "training.matmul")
    return replace(settings, device=device, precision=precision, threads=torch.get_num_threads(), matmul=matmul)


def resolve_objective(recipe: TrainRecipe, initial: InitialModel | None) -> TrainRecipe:
    """The recipe with its objective, and whether its text is parallel (pairs of source and target).

    Text is parallel if data.pairs or the objective require it, or, for an encoder-decoder, if its files have pairs.
    Raises BadSetting for an objective that does not fit the model's architecture or the text.
    """
    architecture = recipe.model.architecture if initial is None else initial.model.config.architecture
    named = objective_spec(recipe.objective) if recipe.objective in OBJECTIVES else None
    pairs = recipe.data.pairs or (named is not None and named.pairs)
    if pairs and not recipe.data.pairs:
        check_no_labels(recipe.text, recipe.data)
    if architecture == "encoder-decoder" and not pairs:
        pairs = is_parallel(recipe.text, recipe.data, by_name=named is None)
    recipe = replace(recipe, objective=cast(Any, table.resolve_objective(recipe.objective, architecture, pairs)))
    objective = objective_spec(recipe.objective)
    recipe = replace(recipe, data=replace(recipe.data, pairs=objective.pairs))
    if recipe.training.label_smoothing and not objective.label_smoothing:
        supported = " and ".join(name for name in OBJECTIVES if objective_spec(name).label_smoothing)
        raise BadSetting(
            f"training.label_smoothing is {recipe.training.label_smoothing:g} and the objective {recipe.objective}, "
            f"which does not support it; it is for {supported}"
        )
    if not objective.generates and recipe.training.sample_steps:
        raise BadSetting(
            f"training.sample_steps is {recipe.training.sample_steps}, but an encoder does not generate text; leave "
            "it out, and try the trained model with: clearstory fill-mask"
        )
    if initial is None:
        overrides = {**objective.model_defaults, **recipe.model.overrides}
        recipe = replace(recipe, model=replace(recipe.model, overrides=overrides))
    return recipe


def make_objective(recipe: TrainRecipe, tokenizer: Tokenizer) -> Objective:
    """The objective of a recipe for a tokenizer. Raises BadSetting if the tokenizer lacks its special tokens."""
    settings = recipe.training
    if settings.shuffle_documents is None:
        settings = replace(settings, shuffle_documents=recipe.data.lines)
    return objective_spec(recipe.objective).make(tokenizer, settings)


def build_config(
    recipe: TrainRecipe,
    corpus: Corpus,
    tokenizer: Tokenizer,
    dataset: TokenDataset,
    objective: Objective,
    initial: InitialModel | None,
) -> tuple[Any, Objective, TokenSequences]:
    """The config of the model, the objective with its start token, and the training data, with tags where learned.

    Raises BadSetting for a model without the heads that the objective trains.
    """
    if initial is not None:
        config: Any = initial.model.config
    else:
        context = recipe.training.context
        config = recipe.model.config(vocab=tokenizer.vocab, context=context, parameters=recipe.parameters)
    training_data: TokenSequences = dataset
    if learns_tags(recipe):
        config, training_data = add_tags(config, corpus, tokenizer, dataset)
    objective, config = objective.configure(config)
    start = bos_or_eos_token_id(tokenizer)
    config = starting_after(config, start)
    if config.family == "hmm" and config.learn == "em" and start is not None and not (dataset.ids == start).any():
        config = replace(config, bos_token_id=start)
    objective_spec(recipe.objective).check_config(config, recipe.init or recipe.model.name, recipe.init is not None)
    return config, objective, training_data


def starting_after(config: Any, start: int | None) -> Any:
    """The config with the token that texts start after, where it is of an n-gram model: its counts depend on it."""
    if config.family == "mixture":
        return replace(config, configs=tuple(starting_after(each, start) for each in config.configs))
    if config.family == "ngram" and config.bos_token_id is None:
        return replace(config, bos_token_id=start)
    return config


def build_model(
    folder: RunFolder, recipe: TrainRecipe, config: Any, initial: InitialModel | None
) -> tuple[TrainRecipe, Any]:
    """The recipe with learning rates scaled to the model's width, and the model on its device.

    Raises BadSetting if training.context exceeds the model's, CheckpointMismatch where the initial model of a
    resumed run has changed.
    """
    if not is_resumed(folder, recipe) and not recipe.lora.rank:
        preset = recipe.model.name if initial is None else None
        recipe = replace(recipe, training=scale_learning_rates(preset, config, recipe.training))
    settings = recipe.training
    if initial is not None:
        model = initial.model
        if recipe.resume:
            check_same_initial_model(folder, initial.fingerprint)
    else:
        device = device_of(config, settings.device)
        model = build(config, seed=settings.seed, initialization=settings.initialization, device=device)
    if settings.context is not None and model.context is not None and settings.context > model.context:
        raise BadSetting(
            f"training.context is {settings.context:,} and model.context {model.context:,}; a model cannot be trained "
            "on sequences longer than its context"
        )
    return recipe, model


def device_of(config: Any, device: str) -> str:
    """The device of a new model: the CPU for models that count in a fixed number of rounds, whose tables are there."""
    if device == "cpu":
        return device
    model = build(config, device="meta")
    return "cpu" if has_capability(model, Capability.COUNT_FITTED) and model.rounds is not None else device


def build_trainer(
    recipe: TrainRecipe, model: Any, objective: Objective, dataset: TokenDataset, training_data: TokenSequences
) -> BaseTrainer:
    """A CountTrainer for models that are fitted by counting or EM, else a Trainer for gradient descent.

    Raises BadSetting for another objective than causal where the model is fitted by counting or EM.
    """
    steps = recipe.steps or DEFAULT_STEPS
    if has_capability(model, Capability.COUNT_FITTED):
        if recipe.objective != "causal":
            raise BadSetting(
                f"objective is {recipe.objective}, and this model ({model.config.family}) is fitted by counting or EM, "
                "which maximizes the likelihood of the next token; leave objective out"
            )
        return CountTrainer(model, training_data, recipe.training, steps=steps)
    if has_capability(model, Capability.EXPERTS):
        config, name = model.config, recipe.model.name
        experts = zip(config.experts, config.configs, strict=True)
        settings = [expert_settings(name, expert, each, recipe.training) for expert, each in experts]
        return MixtureTrainer(model, objective, dataset, settings, steps=steps)
    return Trainer(model, objective, dataset, recipe.training, steps=steps)


def describe_run(
    folder: RunFolder,
    recipe: TrainRecipe,
    corpus: Corpus,
    tokenizer: Tokenizer,
    datasets: Mapping[str, TokenDataset],
    trainer: BaseTrainer,
    initial: InitialModel | None,
) -> tuple[RunPrepared, ModelCard]:
    """The event that describes the prepared run, and the model card."""
    model: Any = trainer.model
    pairs = corpus.settings.pairs
    note = corpus.note
    if isinstance(trainer, Trainer) and (omitted := getattr(trainer.batches, "left_out", 0)):
        sentence = (
            f"{omitted:,} pairs with a source or target of more than {trainer.context:,} tokens are dropped; "
            "--training.context and --model.context set the limit"
        )
        note = "; ".join(filter(None, (note, sentence)))
    remarks = [held_out_note(recipe, datasets, model)]
    if recipe.objective == "span_corruption":
        remarks.append(equal_lines_note(recipe.text, recipe.data))
    note = "; ".join(filter(None, (note, *remarks))) or None
    prepared = RunPrepared(
        corpus=corpus.name,
        note=note,
        documents=corpus.size // 2 if pairs else corpus.size,
        bytes=corpus.text_bytes,
        tokens=len(datasets["train"].ids),
        validation_tokens=len(datasets["validation"].ids),
        tokenizer=tokenizer.kind if initial else tokenizer_spec(recipe, corpus),
        vocab=tokenizer.vocab,
        parameters=count_parameters(remove_lora(model)),
        model_summary=initial.summary if initial else model.config.summary,
        unit="pair" if pairs else "document",
    )
    card = ModelCard(
        name=folder.path.name,
        family=model.config.family,
        parameters=prepared.parameters,
        trained_on=(*(initial.card.trained_on if initial else ()), (corpus.name, datasets["train"].text_bytes)),
    )
    return prepared, card


def held_out_note(recipe: TrainRecipe, datasets: Mapping[str, TokenDataset], model: Any) -> str | None:
    """A note on the held-out text of a model that is fitted by counting; None for other models."""
    held_out, total = len(datasets["validation"]), sum(map(len, datasets.values()))
    if not held_out:
        return "no text is held out (data.validation is 0): there is no validation loss, and the last weights are kept"
    if not has_capability(model, Capability.COUNT_FITTED):
        return None
    return (
        f"{held_out:,} of {total:,} tokens are held out for validation and not trained on; --data.validation 0 trains "
        "on all of them"
    )


def build_validation(
    corpus: Corpus, tokenizer: Tokenizer, dataset: TokenDataset, objective: Objective
) -> ValidationSplit[TokenDataset]:
    """The validation split, with the reason why the tokenizer gives no bits per byte where it gives none."""
    reason = None if objective.no_bits_per_byte else why_lossy(corpus, tokenizer, dataset)
    return ValidationSplit(dataset, objective, reason)


def why_lossy(corpus: Corpus, tokenizer: Tokenizer, dataset: TokenDataset) -> str | None:
    """The reason why there are no bits per byte if the tokenizer does not reproduce the validation text, or None."""
    # Checking a megabyte is enough where the byte count covers all.
    lossless, checked, enough = True, 0, 2**20 if dataset.bytes == dataset.text_bytes else dataset.text_bytes
    for text in corpus.texts("validation"):
        if not lossless or checked > enough:
            break
        lossless, checked = tokenizer.is_lossless(text), checked + len(text)
    if lossless:
        return None
    return lossy_tokenizer_reason(
        0 if tokenizer.unk_token_id is None else int((dataset.ids == tokenizer.unk_token_id).sum())
    )
