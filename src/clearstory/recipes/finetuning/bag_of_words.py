"""Bag of words, `tfidf`: the baseline whose linear model scikit-learn fits; the model itself needs no scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from clearstory.errors import BadSetting, MissingExtra
from clearstory.models.baselines.bag_of_words import BagOfWords
from clearstory.models.baselines.config import BagOfWordsConfig
from clearstory.recipes.finetuning.baselines import FittedBaseline, baseline_events, check_settings
from clearstory.recipes.finetuning.text_baselines import classifier_baseline, labels_of
from clearstory.recipes.settings.finetuning import BAG_OF_WORDS, FinetuneRecipe
from clearstory.recipes.training.events import TrainingEvent
from clearstory.tasks.data.examples import DataSplits, LabeledText
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import UNKNOWN

WORD_PATTERN = r"\w+|[^\w\s]"
"""A word, or a punctuation mark."""

PAIR_BREAK = "\n"
"""Separator of the texts of a pair: a token that is not a word, so that no word pair spans both texts."""

CERTAIN = 1e9
"""Logit of a label that all training texts have, and minus that of one which none has."""


def bag_of_words_events(recipe: FinetuneRecipe) -> Iterator[TrainingEvent]:
    """Events of fitting the baseline. Raises BadSetting for settings of networks, MissingExtra without scikit-learn."""
    check_settings(recipe, "classify", "which scikit-learn fits", training=("class_weights",), others=("threshold",))
    if recipe.training.class_weights not in ((), ("balanced",)):
        raise BadSetting(
            f"training.class_weights is {' '.join(recipe.training.class_weights)}, and {BAG_OF_WORDS} supports only "
            "balanced or equal class weights; set it to balanced, or leave it out"
        )
    return baseline_events(recipe, fit_bag_of_words)


def fit_bag_of_words(recipe: FinetuneRecipe, data: DataSplits[LabeledText]) -> FittedBaseline:
    """The model of a recipe, fitted to its training examples."""
    labels, problem_type = labels_of(data)
    texts = [text for each in data.train.examples for text in (each.text, each.pair) if text is not None]
    tokenizer = lowercase_word_tokenizer(texts)
    model = BagOfWords(BagOfWordsConfig(vocab=tokenizer.vocab, labels=labels, problem_type=problem_type))
    task, fitted = classifier_baseline(recipe, data, model, tokenizer)
    rows = task.encode(data.train.examples)
    model.fit_idf([row.ids for row in rows], words=range(2, tokenizer.vocab))
    balanced = recipe.training.loss_weights() == "balanced"
    weight, bias = fit_linear(model, [row.ids for row in rows], [row.target for row in rows], balanced=balanced)
    model.weight, model.bias = torch.from_numpy(weight), torch.from_numpy(bias)
    return fitted(model.weight.numel() + model.bias.numel())


def lowercase_word_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A token for each word of the texts in lower case and for each punctuation mark, the most frequent first, after
    <unk> and the line feed.
    """
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    split = pre_tokenizers.Split(Regex(rf"\n|{WORD_PATTERN}"), "removed", invert=True)
    lower = normalizers.Lowercase()
    counts = Counter(word for text in texts for word, _ in split.pre_tokenize_str(lower.normalize_str(text)))
    words = sorted(counts.keys() - {UNKNOWN, PAIR_BREAK}, key=lambda word: (-counts[word], word))
    vocabulary = {word: id for id, word in enumerate([UNKNOWN, PAIR_BREAK, *words])}
    backend = Backend(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    backend.normalizer, backend.pre_tokenizer = lower, split
    none = {"bos_token": None, "pad_token": None, "eos_token": None}
    return Tokenizer(backend.to_str(), {"unk_token": UNKNOWN, **none})


def fit_linear(model: BagOfWords, texts: Sequence[Sequence[int]], targets: Sequence[Any], *, balanced: bool) -> Any:
    """Weights (outputs, features) and biases (outputs,) of logistic regression of a label or of each of several, or of
    ridge regression of numbers, by scikit-learn.
    """
    try:
        from scipy.sparse import csr_array  # type: ignore[import-untyped]  # it has no types
        from sklearn.linear_model import LogisticRegression, Ridge
    except ModuleNotFoundError:
        raise MissingExtra(f"{BAG_OF_WORDS} needs scikit-learn: pip install 'clearstory[data]'") from None
    found = [model.features(text) for text in texts]
    ends = np.cumsum([0, *(len(indices) for indices, _ in found)])
    indices, values = (np.concatenate(each) for each in zip(*found, strict=True))
    matrix = csr_array((values, indices, ends), shape=(len(texts), len(model.idf)))
    c, wanted = model.config, np.array(targets)
    weight, bias = np.zeros((c.outputs, len(model.idf))), np.zeros(c.outputs)
    if c.problem_type == "regression":
        ridge = Ridge(alpha=1.0).fit(matrix, wanted)
        return ridge.coef_.reshape(1, -1), np.array([ridge.intercept_], dtype=np.float64)

    def logistic(target: Any) -> Any:
        settings = {"C": 10.0, "max_iter": 1000, "class_weight": "balanced" if balanced else None}
        return LogisticRegression(**settings).fit(matrix, target)

    if c.problem_type == "multi_label_classification":
        for label, target in enumerate(wanted.T > 0):
            if target.all() or not target.any():
                bias[label] = CERTAIN if target.all() else -CERTAIN
                continue
            fitted = logistic(target)
            weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
        return weight, bias
    fitted = logistic(wanted)
    if len(fitted.classes_) == 2 and c.outputs > 2:  # of other labels, the training share has no text
        weight[fitted.classes_[1]], bias[fitted.classes_[1]] = fitted.coef_[0], fitted.intercept_[0]
    elif c.outputs == 1:
        weight, bias = fitted.coef_, fitted.intercept_
    else:
        weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    if c.outputs > 1:
        bias[np.setdiff1d(np.arange(c.outputs), fitted.classes_)] = -CERTAIN
    return weight, bias
