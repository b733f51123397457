"""Classify: the label of a text, or of each of its words, predicted by a model with a classification head."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearstory import durable
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.models.inference_encoder import inference_encoder
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_classifier
from clearstory.recipes.inference.text_inputs import read_texts
from clearstory.tasks.classify import probabilities
from clearstory.tasks.data.text_pairs import read_text_pairs
from clearstory.tasks.prediction_batches import window_outputs
from clearstory.tasks.sentence_inputs import TruncationSide
from clearstory.tasks.text_windows import TextWindows
from clearstory.tasks.word_predictions import predict_words
from clearstory.tasks.word_windows import WordWindows
from clearstory.text.character_encodings import Errors
from clearstory.text.files import content_suffix


@dataclass(frozen=True)
class LabelProbability:
    """A label and its probability; the predicted number, of a model that predicts numbers (regression)."""

    label: str
    probability: float


@dataclass(frozen=True)
class WordLabel:
    """A word (text between white space) with the label that is predicted at its first token.

    A word without a token, which was truncated or consists of characters that the tokenizer drops, has no probability;
    its label is O among labels of entities, else None.
    """

    word: str
    label: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Classification:
    """A text with the probability of every label, most probable first; for a token classifier, its words instead.

    `predicted` are the labels whose probability reaches the model's threshold, if a text can have several labels; else
    None.
    """

    text: str
    labels: tuple[LabelProbability, ...] = ()
    words: tuple[WordLabel, ...] = ()
    pair: str | None = None
    predicted: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The text with its labels or its words, as a dictionary for JSON."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        del values["words" if self.labels else "labels"]
        return values


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
    int8: bool = False,
) -> list[Classification]:
    """Predict the labels of each text, or of each of its words.

    If a text has one label, probabilities add up to 1; if it can have several, each is between 0 and 1; for a
    regression they are the predicted numbers. A text that is the path of a file is replaced by the lines of the file,
    or by the column `text_field` of a table. `pair` is the second text of the pair for every text; `pair_column` is the
    column with the second texts. Texts that exceed the context are truncated with `truncate`, or split into windows
    that start every `stride` tokens and whose probabilities are averaged. With `int8`, the linear layers of an
    encoder's blocks are rounded to 8 bits, which is faster on a CPU. Raises CannotDo for a model without a
    classification head, ContextOverflow for a text that is too long.

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
    windows = TextWindows.of_model(network, tokenizer, truncate, stride)
    if network.config.label_level == "token":
        if pair is not None or pair_column is not None:
            raise CannotDo("this model labels words, not pairs of texts; leave pair and pair_column out")
        return classify_words(network, [text for text, _ in inputs], WordWindows(windows), batch_size, int8)
    parts = [windows(text, second) for text, second in inputs]
    owners = torch.tensor([index for index, part in enumerate(parts) for _ in part])
    rows = [window for part in parts for window in part]
    network = inference_encoder(network, int8=int8, n_tokens=sum(len(row.ids) for row in rows))
    predicted = probabilities(window_outputs(network, rows, batch_size), network.config.problem_type)
    labels = network.config.labels
    if len(rows) > len(inputs):  # the mean of each text's windows
        sums = predicted.new_zeros(len(inputs), len(labels)).index_add(0, owners, predicted)
        predicted = sums / owners.bincount(minlength=len(inputs))[:, None]
    several = network.config.problem_type == "multi_label_classification"
    threshold = network.config.threshold
    results = []
    for (text, second), of_text in zip(inputs, predicted, strict=True):
        found = sorted_labels(labels, of_text)
        chosen = tuple(each.label for each in found if each.probability >= threshold) if several else None
        results.append(Classification(text, labels=found, pair=second, predicted=chosen))
    return results


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
        raise BadInput("there is no text; give one, a file with one text per line, or - for standard input")
    return found


def is_table(source: str | Path) -> bool:
    """Whether a text names a tab-separated file, whose columns have names."""
    return content_suffix(Path(source)) == ".tsv" and expand_home(source).is_file()


def classify_words(
    network: Any, inputs: Sequence[str], windows: WordWindows, batch_size: int, int8: bool = False
) -> list[Classification]:
    """The label of each word of each text."""
    labels = network.config.labels
    words = [text.split() for text in inputs]
    parts = [windows.of_words(each) if each else [] for each in words]
    network = inference_encoder(network, int8=int8, n_tokens=sum(len(each.ids) for part in parts for each in part))
    found = predict_words(network, parts, list(map(len, words)), batch_size)
    results = []
    for text, of_text, predictions in zip(inputs, words, found, strict=True):
        chosen = zip(of_text, predictions.ids.tolist(), predictions.of_labels.tolist(), strict=True)
        labeled = (WordLabel(word, labels[id] if id >= 0 else None, value or None) for word, id, value in chosen)
        results.append(Classification(text, words=tuple(labeled)))
    return results


def write_classifications(file: Path, results: Sequence[Classification]) -> None:
    """Write texts with their labels as .jsonl, .csv or .tsv, a record for each text. Raises BadSetting for another
    suffix.

    A table has the columns text, label and probability, and one for the probability of each label; if a text can have
    several labels, label has the predicted ones, joined by commas. The words of a text and their labels are joined by
    spaces.
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
            label = first.label if each.predicted is None else ",".join(each.predicted)
            columns = [each.text, *[each.pair or ""] * has_pairs, label, first.probability]
            writer.writerow([*columns, *(values[name] for name in names)])
    durable.write_bytes(file, stream.getvalue().encode("utf-8", "surrogatepass"))


def sorted_labels(labels: Sequence[str], probabilities: Tensor) -> tuple[LabelProbability, ...]:
    """All labels with their probabilities, (labels,), most probable first."""
    values, order = probabilities.sort(descending=True, stable=True)
    pairs = zip(order.tolist(), values.tolist(), strict=True)
    return tuple(LabelProbability(labels[index], value) for index, value in pairs)
