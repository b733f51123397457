"""Classify: the label of a text, or of each of its words, predicted by a model with a classification head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.head_config import ProblemType
from clearstory.recipes.inference.embed import TruncationSide, encode_text_ids, truncate_tokens
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_classifier
from clearstory.recipes.inference.text_inputs import batches_by_length, read_texts
from clearstory.text.character_encodings import Errors


@dataclass(frozen=True)
class LabelProbability:
    """A label and its probability; the predicted number, of a model that predicts numbers (regression)."""

    label: str
    probability: float


@dataclass(frozen=True)
class WordLabel:
    """A word (text between white space) with the most probable label of its first token.

    `label` is None for a word without a token: it was truncated, or consists of characters that the tokenizer drops.
    """

    word: str
    label: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Classification:
    """A text with the probability of every label, most probable first; for a token classifier, its words instead."""

    text: str
    labels: tuple[LabelProbability, ...] = ()
    words: tuple[WordLabel, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The text with its labels or its words, as a dictionary for JSON."""
        left_out = "words" if self.labels else "labels"
        return {name: value for name, value in asdict(self).items() if name != left_out}


def classify(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    truncate: TruncationSide | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> list[Classification]:
    """The labels that a model predicts for each text, or for each word of it.

    Probabilities add up to 1 where one label holds; where several may hold, each is between 0 and 1; a regression's are
    the predicted numbers. A text that names a file is replaced by the lines of the file. Raises CannotDo for a model
    without a classification head, ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.classify("moods", "What a fine day!")[0].labels[0]  # doctest: +SKIP
    LabelProbability(label='joy', probability=0.97)
    """
    network, tokenizer = load_classifier(model, device)
    config, weights_device = network.config, next(network.parameters()).device
    inputs = read_texts(texts, errors, text_field)
    rows, offsets, first_tokens = [], [], []
    for text in inputs:
        before, ids, after = encode_text_ids(network, tokenizer, text)
        _, spans = tokenizer.encode_with_offsets(text)
        max_tokens = len(ids) if config.context is None else config.context - len(before) - len(after)
        rows.append([*before, *truncate_tokens(ids, max_tokens, truncate), *after])
        offsets.append(truncate_tokens(spans, max_tokens, truncate))
        first_tokens.append(len(before))
    results: dict[int, Classification] = {}
    with inference_mode(network):
        for batch in batches_by_length(rows, batch_size):
            tokens = TokenBatch.from_sequences([rows[index] for index in batch], weights_device)
            predicted = probabilities(network.class_logits(tokens).double(), config.problem_type).cpu()
            for index, of_text in zip(batch, predicted, strict=True):
                text, labels = inputs[index], config.labels
                if config.label_level == "text":
                    results[index] = Classification(text, labels=sorted_labels(labels, of_text))
                else:
                    words = word_labels(labels, text, offsets[index], of_text[first_tokens[index] :])
                    results[index] = Classification(text, words=words)
    return [results[index] for index in range(len(inputs))]


def probabilities(logits: Tensor, problem_type: ProblemType) -> Tensor:
    """The probabilities of labels with these logits: a softmax where one holds, else one sigmoid each; a regression's
    logits are the predicted numbers.
    """
    if problem_type == "regression":
        return logits
    return logits.sigmoid() if problem_type == "multi_label_classification" else logits.softmax(-1)


def sorted_labels(labels: Sequence[str], probabilities: Tensor) -> tuple[LabelProbability, ...]:
    """All labels with their probabilities, (labels,), most probable first."""
    values, order = probabilities.sort(descending=True, stable=True)
    pairs = zip(order.tolist(), values.tolist(), strict=True)
    return tuple(LabelProbability(labels[index], value) for index, value in pairs)


def word_labels(
    labels: Sequence[str], text: str, offsets: Sequence[tuple[int, int]], probabilities: Tensor
) -> tuple[WordLabel, ...]:
    """The words of a text with their labels, from the probabilities (T, labels) and character offsets of its tokens."""
    results = []
    for word, first in zip(text.split(), first_token_of_words(text, offsets), strict=True):
        if first is None:
            results.append(WordLabel(word))
        else:
            value, label = probabilities[first].max(-1)
            results.append(WordLabel(word, labels[int(label)], float(value)))
    return tuple(results)


def first_token_of_words(text: str, offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """For each word of a text, the index of the first token that overlaps it; None if there is none.

    >>> first_token_of_words("ab c", [(0, 1), (1, 2), (2, 4)])
    [0, 2]
    """
    indices: list[int | None] = []
    token = 0
    for word in re.finditer(r"\S+", text):
        start, end = word.span()
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        indices.append(token if token < len(offsets) and offsets[token][0] < end else None)
    return indices
