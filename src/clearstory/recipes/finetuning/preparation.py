"""The stages of fine-tuning before the first step: data, model, task, rows and trainer of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, cast

from clearstory.errors import BadInput
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import count_parameters
from clearstory.models.lora import remove_lora
from clearstory.recipes.finetuning.backbone import (
    Backbone,
    default_learning_rate,
    is_new,
    new_backbone,
    open_backbone,
    select_trained,
    with_seeded_head,
    without_head,
)
from clearstory.recipes.finetuning.teacher import with_teacher_targets
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.text_to_text import source_truncation
from clearstory.recipes.training.events import RunPrepared
from clearstory.recipes.training.preparation import resolve_for_machine
from clearstory.recipes.training.run_folder import RunFolder, check_same_corpus
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.recipes.training.training_run import TrainingRun
from clearstory.recipes.training.validation import ValidationSplit
from clearstory.tasks.base import EncodedSplit, Task, TaskObjective, TaskSettings, format_metrics
from clearstory.tasks.contrastive import CONTRASTIVE_STEPS, ContrastiveObjective, ContrastiveTrainer, contrastive
from clearstory.tasks.data.examples import DataSplits, LabeledData
from clearstory.tasks.data.splits import few_per_label, split_data
from clearstory.tasks.table import TASKS
from clearstory.training.objectives.base import Validation
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer


class FinetuningPreparation:
    """Prepares a run, and keeps what its end needs: the data, the task and the run itself."""

    data: DataSplits[Any]
    task: Task[Any, Any, Any]
    objective: TaskObjective
    validation: EncodedSplit[Any]
    run: TrainingRun
    few: int | None
    teacher: Mapping[str, str] | None = None

    def __call__(self, folder: RunFolder, recipe: FinetuneRecipe, budget: TimeBudget) -> TrainingRun:
        """Everything that a run needs before its first step: data ─► model ─► task ─► rows ─► trainer."""
        settings = resolve_for_machine(recipe.training.training_settings())
        new = is_new(recipe)
        if recipe.training.learning_rate is None:
            settings = replace(settings, learning_rate=default_learning_rate(recipe, new))
        backbone = None if new else open_backbone(folder, recipe)
        data = read_data(recipe, None if backbone is None else backbone.model)
        if self.teacher is not None:
            data = with_teacher_targets(data, self.teacher)
        if backbone is None:
            backbone = new_backbone(folder, recipe, texts_of(data.train))
        tokenizer, note = TASKS[recipe.task].tokenizer(backbone.tokenizer, task_settings(recipe, backbone))
        backbone = replace(backbone, tokenizer=tokenizer)
        data = replace(data, notes=(*data.notes, *filter(None, [note])))
        fingerprints = {"tokenizer": backbone.tokenizer.fingerprint, "corpus": data_fingerprint(data)}
        if backbone.fingerprint is not None:
            fingerprints["init"] = backbone.fingerprint
        if recipe.resume:
            check_same_corpus(folder, fingerprints["corpus"])
        task = make_task(recipe, data, backbone)
        if prompt := getattr(getattr(task, "format", None), "description", ""):
            data = replace(data, notes=(*data.notes, f"sources are read with {prompt}"))
        accumulated = recipe.training.gradient_accumulation_steps
        objective, trainer_class = TaskObjective(task, recipe.training.batch_tokens * accumulated or None), Trainer
        if recipe.few is not None:
            task = contrastive(task)
            objective, trainer_class = ContrastiveObjective(task), ContrastiveTrainer
        trunk = without_head(backbone.model) if recipe.new_head else backbone.model
        model = select_trained(with_seeded_head(task.build_model, trunk, settings.seed), recipe).to(settings.device)
        train = EncodedSplit(task.encode(data.train.examples))
        validation = EncodedSplit(task.encode(data.validation.examples))
        settings = replace(settings, eval_tokens=max(1, validation.tokens))
        trainer = trainer_class(model, objective, cast(Any, train), settings, steps=1)
        batches_per_epoch = cast(Any, trainer.batches).batches_per_epoch
        least_steps = 1 if recipe.few is None else CONTRASTIVE_STEPS
        prepared, card = describe_finetuning(folder, data, backbone, trainer, train, validation)
        self.data, self.task, self.objective, self.validation = data, task, objective, validation
        self.few = recipe.few
        self.run = TrainingRun(
            folder,
            resolved_recipe(recipe, settings),
            trainer,
            backbone.tokenizer,
            ValidationSplit(validation, objective),
            card,
            budget,
            prepared,
            fingerprints,
            base_folder=backbone.folder if recipe.lora.rank else None,
            generation_config=getattr(task, "config", backbone.generation_config),
            objective=recipe.task,
            default_steps=max(least_steps, round(recipe.training.num_train_epochs * batches_per_epoch)),
            evaluates_all=True,
            summary=summary,
            next_command=TASKS[recipe.task].next_command,
            sentence=getattr(task, "pipeline", None),
        )
        return self.run


def resolved_recipe(recipe: FinetuneRecipe, settings: TrainingSettings) -> FinetuneRecipe:
    """The recipe with the settings chosen for this machine and model."""
    names = ("learning_rate", "device", "precision", "matmul", "threads")
    changes: dict[str, Any] = {name: getattr(settings, name) for name in names}
    return replace(recipe, training=replace(recipe.training, **changes))


def read_data(recipe: FinetuneRecipe, model: Any) -> DataSplits[Any]:
    """The examples of the recipe's files, split into training, validation and test.

    `model`: an existing model, whose labels are those of the data where it has a head already. Of the training
    examples only those are kept that `few` draws.
    """
    spec, reading = TASKS[recipe.task], recipe.reading
    new_head = recipe.new_head or recipe.few is not None
    known = None if model is None or new_head else spec.known_labels(model)
    try:
        data = spec.read(recipe.data, reading, known)
    except BadInput as error:
        if known is None:
            raise
        spec.read(recipe.data, reading, None)  # raises what is wrong with the data themselves
        raise BadInput(f"{error}; or pass --new_head to train a head for other labels than the model's") from None
    labels = data.label_names or None

    def held_out(sources: Sequence[str]) -> LabeledData[Any]:
        return spec.read(sources, reading.for_held_out(data.kind), labels)

    validation = recipe.validation_share
    test = None if recipe.test is None else held_out(recipe.test)
    seed = recipe.training.seed
    splits = split_data(data, held_out(recipe.validation) if validation is None else validation, test, seed)
    if recipe.few is None:
        return splits
    train = few_per_label(splits.train, recipe.few, seed)
    note = f"{len(train):,} of {len(splits.train):,} training examples sampled, {recipe.few} per label"
    return replace(splits, train=train, notes=(*splits.notes, note))


def make_task(recipe: FinetuneRecipe, data: DataSplits[Any], backbone: Backbone) -> Task[Any, Any, Any]:
    """The task of a recipe for these data and this model."""
    settings = task_settings(recipe, backbone)
    return TASKS[recipe.task].make(data, backbone.model, backbone.tokenizer, settings)


def task_settings(recipe: FinetuneRecipe, backbone: Backbone) -> TaskSettings:
    """The settings of the task of a recipe for this model."""
    return TaskSettings(
        truncate=recipe.truncate if recipe.truncate in ("left", "right") else None,
        source_truncation=source_truncation(recipe.truncate),
        stride=recipe.stride,
        new_head=recipe.new_head,
        label_smoothing=recipe.training.label_smoothing,
        class_weights=recipe.training.loss_weights(),
        threshold="auto" if recipe.threshold == "auto" else float(recipe.threshold),
        embed=recipe.embed,
        chat=recipe.chat,
        text_to_text=recipe.text_to_text,
        max_eval_samples=recipe.distillation.max_eval_samples,
        generation_config=backbone.generation_config,
        folder=backbone.folder,
    )


def texts_of(data: LabeledData[Any]) -> Iterator[str]:
    """The texts of all examples."""
    others = ("pair", "positive", "negative", "answer")
    return chain.from_iterable(
        (each.text, *filter(None, [getattr(each, name, None) for name in others]), *getattr(each, "targets", ()))
        for each in data.examples
    )


def data_fingerprint(data: DataSplits[Any]) -> str:
    """A hash of all training and validation examples."""
    digest = blake2b(digest_size=16)
    for part in (data.train, data.validation):
        for example in part.examples:
            digest.update(repr(replace(example, location="")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def describe_finetuning(
    folder: RunFolder,
    data: DataSplits[Any],
    backbone: Backbone,
    trainer: Trainer,
    train: EncodedSplit[Any],
    validation: EncodedSplit[Any],
) -> tuple[RunPrepared, ModelCard]:
    """The event that describes the prepared run, and the model card."""
    model: Any = trainer.model
    text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts_of(data.train))
    parameters = count_parameters(remove_lora(model))
    trained = sum(each.numel() for each in trainer.parameters)
    share = "" if trained == parameters else f", {trained:,} of them trained"
    padding = getattr(trainer.batches, "padding_share", 0.0)
    new = [f"{backbone.card.name} is a preset with random weights"] if backbone.folder is None else []
    notes = [*new, *data.train.notes, *data.notes, f"padding is {padding:.1%} of the training batches"]
    prepared = RunPrepared(
        corpus=data.train.name,
        note="; ".join(notes),
        documents=len(data.train.examples),
        bytes=text_bytes,
        tokens=train.tokens,
        validation_tokens=validation.tokens,
        tokenizer=backbone.tokenizer.kind,
        vocab=backbone.tokenizer.vocab,
        parameters=parameters,
        model_summary=f"{backbone.note}{share}",
        unit="example",
    )
    card = ModelCard(
        name=folder.path.name,
        family=model.config.family,
        parameters=parameters,
        trained_on=(*backbone.card.trained_on, (Path(data.train.name).name, text_bytes)),
    )
    return prepared, card


def summary(validation: Validation) -> str:
    """The final result in one sentence."""
    return f"{format_metrics(validation.metrics)} on {validation.score.tokens:,} validation examples"
