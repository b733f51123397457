"""Label-efficiency curve: the score of a fine-tuned model against its number of labeled examples, with baselines.

for each draw (a seed) and each number of labels, the same examples for
    the model, fine-tuned     its head fitted to its vectors first, then all weights trained (Kumar et al. 2022)
    frozen                    that head alone
    tfidf, presets            as `finetune` trains them

Each model is scored once, after its last step, on the test examples where they are given, else on the validation
examples: nothing is selected by them, and of several labels the threshold is fitted to others or left at 0.5. Scores
are kept in report.json as they come, and a resumed curve continues there.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clearstory.models.build import count_parameters
from clearstory.models.head_config import DEFAULT_THRESHOLD
from clearstory.models.heads import SequenceClassifier
from clearstory.models.lora import remove_lora
from clearstory.models.lora_settings import LoRASettings
from clearstory.models.matmul.backend import resolve_backend, using_backend
from clearstory.recipes.finetuning.backbone import (
    Backbone,
    default_learning_rate,
    new_backbone,
    select_trained,
    with_seeded_head,
    without_head,
)
from clearstory.recipes.finetuning.bag_of_words import fit_bag_of_words
from clearstory.recipes.finetuning.curve_report import FINE_TUNED, CurvePoint
from clearstory.recipes.finetuning.preparation import make_task, texts_of
from clearstory.recipes.settings.finetuning import BAG_OF_WORDS, FinetuneRecipe
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.tasks.base import EncodedSplit, TaskObjective
from clearstory.tasks.classify import Classify
from clearstory.tasks.data.examples import DataSplits, LabeledData, LabeledText
from clearstory.tasks.data.splits import draw_examples
from clearstory.tasks.linear_head import fit_linear_head, sentence_vectors
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import COMPUTE_DTYPES, Trainer

FROZEN = "frozen"
"""The baseline whose head alone is fitted."""

MIN_STEPS = 20
"""Steps of a fine-tuned model whose epochs would have fewer: few labels need many passes (Mosbach et al. 2021)."""

SCRATCH_EPOCHS = 4
"""Epochs of a model with random weights for each epoch of a pre-trained one; it has as many times the steps."""


@dataclass
class LabelCurve:
    """What all points of a curve share.

    Args:
        recipe: the settings of the run, resolved, for a model with a new head.
        settings: the settings of the trainer.
        backbone: the model that is fine-tuned, which stays as it is; None for a preset.
        data: all training examples, and the others.
        held_out: the examples that the models are scored on.
        known_vectors: vectors of training rows that have been computed.
        parameters: number of parameters of the model that is fine-tuned, once one has been.
    """

    recipe: FinetuneRecipe
    settings: TrainingSettings
    backbone: Backbone | None
    data: DataSplits[LabeledText]
    held_out: LabeledData[LabeledText]
    known_vectors: dict[Any, Tensor] = field(default_factory=dict)
    parameters: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models: that of the recipe first."""
        return (FINE_TUNED, *(self.recipe.baselines or (FROZEN, BAG_OF_WORDS)))

    def point(self, model: str, labels: int, seed: int) -> CurvePoint:
        """The scores of one model that is trained on `labels` examples drawn by `seed`."""
        started = time.process_time()
        drawn = draw_examples(self.data.train, labels, seed)
        steps = 0
        if model == BAG_OF_WORDS:
            data = replace(self.data, train=drawn, validation=self.decided_on)
            scores = fit_bag_of_words(self.recipe, data).evaluate(self.held_out)
            metrics = dict(scores.metrics)
        elif model == FROZEN:
            metrics = self.score(self.task, self.probe(self.drawn_rows(drawn)))
        elif model == FINE_TUNED and self.backbone is not None:
            rows = self.drawn_rows(drawn)
            trained = select_trained(self.probe(rows), self.recipe)
            steps, metrics = self.train(self.task, trained, rows, replace(self.settings, seed=seed), 1)
        else:
            name = self.recipe.model if model == FINE_TUNED else model
            steps, metrics = self.train_new(name, drawn, seed)
        return CurvePoint(model, labels, seed, metrics, steps, round(time.process_time() - started, 2))

    @property
    def decided_on(self) -> LabeledData[LabeledText]:
        """The examples that thresholds of several labels are fitted to: the validation examples, where others are
        scored; else none, and a label is predicted from 0.5 on.
        """
        return self.data.validation if self.data.test is not None else replace(self.data.validation, examples=())

    @property
    def note(self) -> str | None:
        """A sentence on the threshold, where it is not fitted; None for one label."""
        if self.data.train.kind != "multi" or self.recipe.threshold != "auto" or self.decided_on.examples:
            return None
        return (
            f"labels are predicted above a probability of {DEFAULT_THRESHOLD:g}; with --test, the threshold is fitted "
            "to the validation examples"
        )

    @cached_property
    def task(self) -> Classify:
        """The task of the model that is fine-tuned."""
        assert self.backbone is not None
        return cast(Classify, make_task(self.recipe, self.data, self.backbone))

    @cached_property
    def rows(self) -> list[list[Any]]:
        """The rows of each training example."""
        rows: list[list[Any]] = [[] for _ in self.data.train.examples]
        for row in self.task.encode(self.data.train.examples):
            rows[row.example].append(row)
        return rows

    def drawn_rows(self, drawn: LabeledData[LabeledText]) -> list[Any]:
        """The rows of drawn examples, each with the index of its example among all."""
        chosen = {id(example) for example in drawn.examples}
        return [
            row
            for example, rows in zip(self.data.train.examples, self.rows, strict=True)
            if id(example) in chosen
            for row in rows
        ]

    def vectors(self, rows: list[Any]) -> Tensor:
        """Vectors of rows, (N, W), as the model gives them before it is fine-tuned; each is computed once."""
        new = [row for row in rows if row not in self.known_vectors]
        if new:
            found = self.computing(lambda model: sentence_vectors(model, new), self.classifier)
            self.known_vectors |= dict(zip(new, found, strict=True))
        return torch.stack([self.known_vectors[row] for row in rows])

    @cached_property
    def classifier(self) -> SequenceClassifier:
        """The model with a head on the mean of its hidden states, before any training."""
        assert self.backbone is not None
        trunk = without_head(self.backbone.model)
        model = SequenceClassifier(trunk, self.task.labels, problem_type=self.task.problem_type, pooling="mean")
        return model.to(self.settings.device)

    def probe(self, rows: list[Any]) -> SequenceClassifier:
        """A copy of the model whose head is fitted to the vectors of these rows."""
        model = copy.deepcopy(self.classifier)
        fit_linear_head(model, self.task, self.vectors(rows), rows)
        return model

    def train_new(self, preset: str, drawn: LabeledData[LabeledText], seed: int) -> tuple[int, dict[str, float]]:
        """Steps and metrics of a new model of a preset, with a tokenizer trained on the same texts."""
        training = replace(self.recipe.training, seed=seed)
        recipe = replace(self.recipe, model=preset, resume=False, freeze="0", lora=LoRASettings(), training=training)
        backbone = new_backbone(RunFolder(Path("unused")), recipe, texts_of(drawn))
        task = cast(Classify, make_task(recipe, replace(self.data, train=drawn), backbone))
        model = with_seeded_head(task.build_model, backbone.model, seed).to(self.settings.device)
        rate = default_learning_rate(recipe, new=True)
        settings = replace(self.settings, seed=seed, learning_rate=rate)
        return self.train(task, model, task.encode(drawn.examples), settings, SCRATCH_EPOCHS)

    def train(
        self, task: Classify, model: nn.Module, rows: list[Any], settings: TrainingSettings, factor: int
    ) -> tuple[int, dict[str, float]]:
        """Steps and metrics of a model that is trained on rows: the recipe's epochs, at least MIN_STEPS, `factor` times
        as many.
        """
        self.parameters = self.parameters or count_parameters(remove_lora(model))
        trainer = Trainer(model, TaskObjective(task), cast(Any, EncodedSplit(rows)), settings, steps=1)
        epochs = self.recipe.training.num_train_epochs * cast(Any, trainer.batches).batches_per_epoch
        trainer.set_total_steps(self.recipe.steps or factor * max(MIN_STEPS, round(epochs)))
        for _ in trainer:
            pass
        return trainer.step, self.score(task, model)

    def score(self, task: Classify, model: nn.Module) -> dict[str, float]:
        """Metrics of a model on the held-out examples."""

        def predict(examples: LabeledData[LabeledText]) -> tuple[Any, Any]:
            rows = task.encode(examples.examples)
            return self.computing(lambda each: task.predict(each, rows), model), rows

        if task.threshold is None and self.decided_on.examples:
            task = task.fit_decision(model, *predict(self.decided_on))
        metrics = task.score(*predict(self.held_out))
        return {name: value for name, value in metrics.items() if name != "loss"}

    def computing(self, function: Any, model: nn.Module) -> Any:
        """The result of a function of the model, computed in the precision of training."""
        cast(Any, model).compute_dtype = COMPUTE_DTYPES[self.settings.precision]
        with using_backend(resolve_backend(self.settings.matmul, "training.matmul")):
            return function(model)
