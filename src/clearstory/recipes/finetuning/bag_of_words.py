"""Bag of words: TF-IDF of words and pairs of words with a linear model, by scikit-learn: the baseline of `finetune`.

Named as a model, `tfidf`, it is fitted to the training examples and scored on the others; no model is saved.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from clearstory import durable
from clearstory.errors import BadSetting, MissingExtra
from clearstory.evaluation.classification import Floats
from clearstory.models.head_config import ProblemType
from clearstory.recipes.finetuning.preparation import read_data
from clearstory.recipes.settings.finetuning import BAG_OF_WORDS, FinetuneRecipe
from clearstory.recipes.settings.yaml_files import to_yaml
from clearstory.recipes.training.events import TrainingEvent, TrainingResult, TrainingWarning
from clearstory.recipes.training.run_folder import lock_run_folder, open_run_folder
from clearstory.tasks.base import TaskEvaluation, evaluate_predictions
from clearstory.tasks.classify import NUMBER_LABEL, PROBLEM_TYPES, Classify, TextRow
from clearstory.tasks.data.examples import LabeledText
from clearstory.tasks.text_windows import TextWindows

PAIR_SEPARATOR = " | "


def bag_of_words_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of fitting the baseline: notes on the data, and its TrainingResult.

    Raises BadSetting for settings of networks, MissingExtra without scikit-learn.
    """
    check_settings(recipe)
    started, cpu_started = time.monotonic(), time.process_time()
    with lock_run_folder(recipe) as (recipe, note):
        folder, recipe = open_run_folder(recipe)
        data = read_data(recipe, None)
        for sentence in filter(None, (note, *data.train.notes, *data.notes)):
            yield TrainingWarning(step=0, message=sentence)
        problem_type = PROBLEM_TYPES[data.train.kind]
        labels = (NUMBER_LABEL,) if problem_type == "regression" else data.train.label_names
        task = Classify(labels, problem_type, cast(TextWindows, None))  # no ids are made
        model = fit(task, data.train.examples, balanced=recipe.training.loss_weights() == "balanced")
        scores: dict[str, TaskEvaluation] = {}
        for name, part in (("validation", data.validation), ("test", data.test)):
            if part is not None and part.examples:
                rows = rows_of(task, part.examples)
                predictions = predict(model, part.examples, problem_type, len(labels))
                scores[name] = evaluate_predictions(task, predictions, rows, part)
        if recipe.overwrite:
            folder.clear()
        durable.write_text(folder.config_file, to_yaml(recipe.with_absolute_paths()))
        durable.write_json(folder.path / "report.json", {name: each.to_json() for name, each in scores.items()})
        yield describe_result(recipe, folder.path, scores, model, time.monotonic() - started, cpu_started)


def describe_result(
    recipe: FinetuneRecipe,
    folder: Path,
    scores: dict[str, TaskEvaluation],
    model: Any,
    seconds: float,
    cpu_started: float,
) -> TrainingResult:
    """The result of the baseline."""
    from clearstory.recipes.finetuning.loop import with_scores

    result = TrainingResult(
        folder=folder,
        run_folder=folder,
        bits_per_byte=None,
        nats_per_token=None,
        cpu_seconds=time.process_time() - cpu_started,
        seconds=seconds,
        tokens=0,
        steps=0,
        parameters=sum(np.size(each.coef_) for each in linear_parts(model)),
        curve=None,
        objective=recipe.task,
        metrics=scores["validation"].metrics if "validation" in scores else {},
        next_command="clearstory finetune MODEL " + " ".join(recipe.data),
    )
    return with_scores(result, scores)


def check_settings(recipe: FinetuneRecipe) -> None:
    """Raise BadSetting for a setting that only networks have."""
    allowed = ("model", "data", "task", "out", "validation", "test", "reading", "seeds", "overwrite", "training")
    usual = FinetuneRecipe()
    changed = [name for name in vars(recipe) if name not in allowed and getattr(recipe, name) != getattr(usual, name)]
    training = replace(recipe.training, seed=0, class_weights=())
    if not changed and training != usual.training:
        changed = ["training"]
    if recipe.training.class_weights not in ((), ("balanced",)):
        changed = ["training.class_weights"]
    if changed or recipe.task != "classify":
        raise BadSetting(
            f"{changed[0] if changed else 'task'} does not apply to {BAG_OF_WORDS}, which scikit-learn fits; it has "
            "training.seed and training.class_weights balanced"
        )


def text_of(example: LabeledText) -> str:
    """The text of an example; of a pair both."""
    return example.text if example.pair is None else f"{example.text}{PAIR_SEPARATOR}{example.pair}"


def rows_of(task: Classify, examples: Sequence[LabeledText]) -> list[TextRow]:
    """The targets of examples, without ids."""
    numbers = {label: number for number, label in enumerate(task.labels)}
    return [TextRow((), None, task.target(example, numbers), index) for index, example in enumerate(examples)]


def fit(task: Classify, examples: Sequence[LabeledText], *, balanced: bool) -> Any:
    """TF-IDF of words and pairs of words that occur in two texts, and logistic regression, one for each of several
    labels; or ridge regression of numbers.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline
    except ModuleNotFoundError:
        raise MissingExtra(f"{BAG_OF_WORDS} needs scikit-learn: pip install 'clearstory[data]'") from None
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    linear: Any = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced" if balanced else None)
    targets = np.array([row.target for row in rows_of(task, examples)])
    if task.problem_type == "multi_label_classification":
        linear = OneVsRestClassifier(linear)
    elif task.problem_type == "regression":
        linear = Ridge(alpha=1.0)
    return make_pipeline(words, linear).fit([text_of(example) for example in examples], targets)


def predict(model: Any, examples: Sequence[LabeledText], problem_type: ProblemType, labels: int) -> list[Floats]:
    """Probabilities of all labels, or the number, (labels,), of each example."""
    texts = [text_of(example) for example in examples]
    if problem_type == "regression":
        return [np.array([value], dtype=np.float64) for value in model.predict(texts)]
    values = np.asarray(model.predict_proba(texts), dtype=np.float64)
    if problem_type == "single_label_classification":  # a label may be missing from the training share
        whole = np.zeros((len(values), labels))
        whole[:, model.classes_] = values
        values = whole
    return list(values)


def linear_parts(model: Any) -> list[Any]:
    """The linear models of a pipeline: one, or one for each of several labels."""
    last = model[-1]
    return [each for each in getattr(last, "estimators_", [last]) if hasattr(each, "coef_")]
