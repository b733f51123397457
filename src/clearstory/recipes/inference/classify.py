"""Classify: the label of a text, or of each of its words, predicted by a model with a classification head."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearstory import durable
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.recipes.inference.embed import TruncationSide, encode_text_ids, truncate_tokens
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_classifier
from clearstory.recipes.inference.text_inputs import batches_by_length, read_texts
from clearstory.tasks.classify import probabilities, window_outputs
from clearstory.tasks.data.text_pairs import read_text_pairs
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.character_encodings import Errors
from clearstory.text.files import content_suffix
from clearstory.text.tokenizers import Tokenizer


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
    pair: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The text with its labels or its words, as a dictionary for JSON."""
        left_out = {"words" if self.labels else "labels", *({"pair"} if self.pair is None else ())}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def classify(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    pair: str | None = None,
    pair_column: str | None = None,
    truncate: TruncationSide | None = None,
    stride: int | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> list[Classification]:
    """The labels that a model predicts for each text, or for each word of it.

    Probabilities add up to 1 where one label holds; where several may hold, each is between 0 and 1; a regression's are
    the predicted numbers. A text that names a file is replaced by the lines of the file, or by the column `text_field`
    of a table. `pair` is the second text of a pair with each text; `pair_column` is the column with the second texts.
    Texts longer than the context are cut with `truncate`, or read in windows that start every `stride` tokens, whose
    probabilities are averaged. Raises CannotDo for a model without a classification head, ContextOverflow for a text
    that is too long.

    >>> import clearstory
    >>> clearstory.classify("moods", "What a fine day!")[0].labels[0]  # doctest: +SKIP
    LabelProbability(label='joy', probability=0.97)
    """
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    network, tokenizer = load_classifier(model, device)
    inputs = read_pairs(texts, errors, text_field, pair_column)
    if pair is not None:
        inputs = [(text, pair) for text, _ in inputs]
    if network.config.label_level == "token":
        if pair is not None or pair_column is not None or stride is not None:
            raise CannotDo("this model labels each word of a text; leave pair, pair_column and stride out")
        return classify_words(network, tokenizer, [text for text, _ in inputs], truncate, batch_size)
    windows = TextWindows.of_model(network, tokenizer, truncate, stride)
    parts = [windows(text, second) for text, second in inputs]
    owners = torch.tensor([index for index, part in enumerate(parts) for _ in part])
    rows = [window for part in parts for window in part]
    predicted = probabilities(window_outputs(network, rows, batch_size), network.config.problem_type)
    labels = network.config.labels
    if len(rows) > len(inputs):  # the mean of each text's windows
        sums = predicted.new_zeros(len(inputs), len(labels)).index_add(0, owners, predicted)
        predicted = sums / owners.bincount(minlength=len(inputs))[:, None]
    return [
        Classification(text, labels=sorted_labels(labels, of_text), pair=second)
        for (text, second), of_text in zip(inputs, predicted, strict=True)
    ]


def read_pairs(
    texts: str | Path | Sequence[str | Path], errors: Errors, text_field: str, pair_column: str | None
) -> list[tuple[str, str | None]]:
    """All texts, each with the second text of its pair. One that names a file is replaced by the texts in it."""
    found: list[tuple[str, str | None]] = []
    for each in [texts] if isinstance(texts, str | Path) else texts:
        if is_table(each) or pair_column is not None:
            found += read_text_pairs(each, text_field, pair_column, errors)
        else:
            found += [(text, None) for text in read_texts(each, errors, text_field)]
    if not found:
        raise BadInput("there is no text; give one, a file with a text on each line, or - for standard input")
    return found


def is_table(source: str | Path) -> bool:
    """Whether a text names a tab-separated file, whose columns have names."""
    return content_suffix(Path(source)) == ".tsv" and Path(source).expanduser().is_file()


def classify_words(
    network: Any, tokenizer: Tokenizer, inputs: Sequence[str], truncate: TruncationSide | None, batch_size: int
) -> list[Classification]:
    """The label of each word of each text."""
    config, weights_device = network.config, next(network.parameters()).device
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
            predicted = network.class_logits(tokens).double().softmax(-1).cpu()
            for index, of_text in zip(batch, predicted, strict=True):
                text = inputs[index]
                words = word_labels(config.labels, text, offsets[index], of_text[first_tokens[index] :])
                results[index] = Classification(text, words=words)
    return [results[index] for index in range(len(inputs))]


def write_classifications(file: Path, results: Sequence[Classification]) -> None:
    """Write texts with their labels as .jsonl, .csv or .tsv, a record for each text. Raises BadSetting for another
    suffix.

    A table has the columns text, label and probability, and one for the probability of each label; the words of a text
    and their labels are joined by spaces.
    """
    if file.suffix == ".jsonl":
        text = "".join(json.dumps(each.to_json(), ensure_ascii=False) + "\n" for each in results)
        durable.write_bytes(file, text.encode("utf-8", "surrogatepass"))
        return
    if file.suffix not in (".csv", ".tsv"):
        raise BadSetting(f"out is {file}; its suffix must be .jsonl, .csv or .tsv")
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="," if file.suffix == ".csv" else "\t", lineterminator="\n")
    names = sorted({label.label for each in results for label in each.labels})
    has_pairs, has_words = any(each.pair is not None for each in results), any(each.words for each in results)
    if has_words:
        writer.writerow(["text", "labels"])
        writer.writerows([each.text, " ".join(word.label or "" for word in each.words)] for each in results)
    else:
        writer.writerow(["text", *["pair"] * has_pairs, "label", "probability", *names])
        for each in results:
            values = {label.label: label.probability for label in each.labels}
            first = each.labels[0]
            columns = [each.text, *[each.pair or ""] * has_pairs, first.label, first.probability]
            writer.writerow([*columns, *(values[name] for name in names)])
    durable.write_bytes(file, stream.getvalue().encode("utf-8", "surrogatepass"))


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
