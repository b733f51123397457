"""Predicted labels of words: probabilities by a token classifier, and the label of each word that follows from them.

Every command that labels words (tag, classify, evaluate, and the validation of finetune) predicts them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.evaluation.classification import Bools, Floats, Ints
from clearstory.evaluation.entities import OUTSIDE
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.head_config import TagScheme
from clearstory.models.heads import TokenClassifier
from clearstory.models.tag_paths import likeliest_bio_tags
from clearstory.tasks.data.chunk_tags import is_chunk_scheme
from clearstory.tasks.prediction_batches import batches_of_tokens
from clearstory.tasks.word_windows import WordWindow

NO_PREDICTION = -1
"""The predicted id of a word that is in no window, if O is not a label."""


@dataclass(frozen=True)
class WordPredictions:
    """Predictions for the words of a sentence.

    Args:
        probabilities: of all labels, (words, labels); 0 for a word without a prediction.
        ids: the predicted label of each word, (words,); of a word without a prediction O among labels of entities, else
            NO_PREDICTION.
    """

    probabilities: Floats
    ids: Ints

    @property
    def predicted(self) -> Bools:
        """Whether each word has a prediction, (words,)."""
        return np.asarray(self.probabilities.any(1))

    @property
    def of_labels(self) -> Floats:
        """The probability of each word's label, (words,); 0 for a word without a prediction."""
        return self.probabilities[np.arange(len(self.ids)), self.ids]


def predict_words(
    model: nn.Module, sentences: Sequence[Sequence[WordWindow]], words: Sequence[int], batch_size: int | None = None
) -> list[WordPredictions]:
    """Predictions for the words of each sentence, given its windows and its number of words.

    Probabilities of a word are the mean of those at its first token in all windows that have it.
    """
    config: Any = model.config
    outputs = iter(word_probabilities(model, list(chain.from_iterable(sentences)), batch_size))
    found = []
    for windows, count in zip(sentences, words, strict=True):
        values = mean_of_windows(windows, [next(outputs) for _ in windows], count, len(config.labels))
        found.append(WordPredictions(values.numpy(), choose_labels(values.numpy(), config.labels, config.tag_scheme)))
    return found


def choose_labels(probabilities: Floats, labels: Sequence[str], scheme: TagScheme = "") -> Ints:
    """The predicted label id of each word, (words,), given probabilities of all labels, (words, labels): the argmax, or
    with scheme bio the most likely sequence without an I- that does not continue a chunk.

    >>> choose_labels(np.array([[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]]), ("O", "B-PER", "I-PER"), "bio").tolist()
    [0, 0]
    """
    predicted = np.asarray(probabilities.any(1))
    outside = labels.index(OUTSIDE) if OUTSIDE in labels and is_chunk_scheme(labels) else NO_PREDICTION
    if scheme != "bio":
        return np.where(predicted, probabilities.argmax(1), outside)
    certain = np.where(predicted[:, None], probabilities, np.arange(len(labels)) == outside)
    ids = likeliest_bio_tags(np.log(certain + np.finfo(np.float64).tiny), labels)
    return np.where(predicted, ids, outside)


def word_probabilities(
    model: nn.Module, windows: Sequence[WordWindow], batch_size: int | None = None
) -> list[Float[Tensor, "words labels"]]:
    """Probabilities of the labels of the words of each window, in order, on the CPU in float64.

    Batches have windows of similar length, at most `batch_size` and about PREDICTION_TOKENS tokens.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(windows)), key=lambda index: len(windows[index].ids))
    outputs: dict[int, Tensor] = {}
    with inference_mode(model):
        for batch in batches_of_tokens(order, windows, batch_size or len(windows)):
            tokens = TokenBatch.from_sequences([windows[index].ids for index in batch], device)
            logits = cast(TokenClassifier, model).class_logits(tokens)
            for index, of_window in zip(batch, logits, strict=True):
                positions = torch.tensor(windows[index].positions, dtype=torch.long, device=device)
                outputs[index] = of_window[positions].double().softmax(-1).cpu()
    return [outputs[index] for index in range(len(windows))]


def mean_of_windows(
    windows: Sequence[WordWindow], outputs: Sequence[Float[Tensor, "words labels"]], words: int, labels: int
) -> Float[Tensor, "all labels"]:
    """Probabilities of all words of a sentence: the mean of the windows that a word is in, 0 for a word in none."""
    sums = torch.zeros(words, labels, dtype=torch.float64)
    counts = sums.new_zeros(words)
    for window, values in zip(windows, outputs, strict=True):
        chosen = torch.tensor(window.words, dtype=torch.long)
        sums[chosen] += values
        counts[chosen] += 1
    return sums / counts.clamp(min=1)[:, None]
