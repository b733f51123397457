"""Baselines that classify texts: their labels, their task, and the evaluation and saving of a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.head_config import DEFAULT_THRESHOLD, ProblemType
from clearstory.recipes.finetuning.baselines import FittedBaseline
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.tasks.base import evaluate_task
from clearstory.tasks.classify import NUMBER_LABEL, PROBLEM_TYPES, Classify
from clearstory.tasks.data.examples import DataSplits, LabeledData, LabeledText
from clearstory.tasks.evaluation import TaskEvaluation
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.tokenizers import Tokenizer


def labels_of(data: DataSplits[LabeledText]) -> tuple[tuple[str, ...], ProblemType]:
    """The labels of examples, and the problem type."""
    problem_type = PROBLEM_TYPES[data.train.kind]
    return (NUMBER_LABEL,) if problem_type == "regression" else data.train.label_names, problem_type


def classifier_baseline(
    recipe: FinetuneRecipe, data: DataSplits[LabeledText], model: nn.Module, tokenizer: Tokenizer
) -> tuple[Classify, Callable[[int], FittedBaseline]]:
    """The task of a model that is not fitted yet, and a function that gives the baseline once it is, by its number of
    parameters.
    """
    labels, problem_type = labels_of(data)
    several = problem_type == "multi_label_classification"
    threshold = None if several and recipe.threshold == "auto" else DEFAULT_THRESHOLD
    if recipe.threshold != "auto":
        threshold = float(recipe.threshold)
    task = Classify(labels, problem_type, TextWindows.of_model(model, tokenizer), threshold=threshold)

    def evaluate(part: LabeledData[LabeledText]) -> TaskEvaluation:
        return evaluate_task(task, model, part)

    def save(folder: Path) -> Path:
        size = sum(len(each.text.encode("utf-8", "surrogatepass")) for each in data.train.examples)
        trained_on = ((Path(data.train.name).name, size),)
        config: Any = model.config
        card = ModelCard(name=folder.parent.name, family=config.family, trained_on=trained_on)
        return save_model(folder, model, tokenizer, card)

    def fitted(parameters: int) -> FittedBaseline:
        nonlocal task
        if task.threshold is None and data.validation.examples:
            rows = task.encode(data.validation.examples)
            task = task.fit_decision(model, task.predict(model, rows), rows)
        config: Any = model.config
        return FittedBaseline(config.summary, parameters, evaluate, save, 'clearstory classify {run} "..."')

    return task, fitted
