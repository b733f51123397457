"""Class-conditional n-gram models, `ngram`: the baseline that compares how well the texts of each label predict one."""

from __future__ import annotations

from collections.abc import Iterator

from clearstory.errors import BadInput, CannotDo
from clearstory.models.baselines.config import NGramClassifierConfig
from clearstory.models.baselines.ngram_classifier import NGramClassifier
from clearstory.models.build import count_parameters
from clearstory.models.ngram.config import NGramConfig
from clearstory.recipes.finetuning.baselines import FittedBaseline, baseline_events, check_settings
from clearstory.recipes.finetuning.text_baselines import classifier_baseline, labels_of
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.training.events import TrainingEvent
from clearstory.tasks.data.examples import DataSplits, LabeledText
from clearstory.text.train_tokenizer import train_tokenizer

ORDERS = {"characters": 4, "bytes": 4, "words": 1, "wordpunct": 1}
"""Tokens of the longest n-gram by the kind of tokenizer, 2 for others: those with the best accuracy on SST-2."""


def ngram_classifier_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of fitting the baseline. Raises BadSetting for settings of networks."""
    check_settings(recipe, "classify", "which counts n-grams", others=("tokenizer",))
    return baseline_events(recipe, fit_ngram_classifier)


def fit_ngram_classifier(recipe: FinetuneRecipe, data: DataSplits[LabeledText]) -> FittedBaseline:
    """The n-gram models of a recipe, fitted to its training examples. Raises CannotDo if a text has several labels
    or a number, BadInput for a label without a text.
    """
    labels, problem_type = labels_of(data)
    if problem_type != "single_label_classification":
        raise CannotDo(
            f"ngram is for texts with one label each, but the problem is {data.train.kind}; use tfidf or a network"
        )
    texts = [text for each in data.train.examples for text in (each.text, each.pair) if text is not None]
    kind = recipe.tokenizer or "words"
    tokenizer = train_tokenizer(kind, texts)
    config = NGramConfig(
        vocab=tokenizer.vocab, order=ORDERS.get(tokenizer.kind, 2), bos_token_id=tokenizer.eos_token_id, counts=False
    )
    model = NGramClassifier(
        NGramClassifierConfig(vocab=tokenizer.vocab, labels=labels, configs=(config,) * len(labels))
    )
    task, fitted = classifier_baseline(recipe, data, model, tokenizer)
    rows = task.encode(data.train.examples)
    targets = [int(row.target) for row in rows]  # type: ignore[arg-type]  # a text has one label
    if missing := set(range(len(labels))) - set(targets):
        raise BadInput(
            f"no training text has the label {labels[min(missing)]!r}; give some, or a larger fraction of the examples"
        )
    model.fit([row.ids for row in rows], targets)
    return fitted(count_parameters(model))
