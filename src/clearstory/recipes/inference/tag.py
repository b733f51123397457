"""Tag: the tag of each word, predicted by a fine-tuned token classifier or by a hidden Markov model of tags."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from clearstory import durable
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.evaluation.entities import OUTSIDE, find_entities
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.hmm.model import HMM
from clearstory.models.hmm.tagger import Tagger
from clearstory.models.inference_encoder import inference_encoder
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.tasks.data.chunk_tags import is_chunk_scheme
from clearstory.tasks.data.words import Sentence, read_sentences
from clearstory.tasks.hmm_tags import predict_tags
from clearstory.tasks.text_windows import TextWindows, Truncate
from clearstory.tasks.word_predictions import NO_PREDICTION, WordPredictions, predict_words
from clearstory.tasks.word_windows import WordWindows
from clearstory.text.character_encodings import Errors
from clearstory.text.conllu import CONLLU_SUFFIX
from clearstory.text.tokenizers import Tokenizer

NO_TAG = "_"
"""Placeholder in CoNLL files for the tag of a word without one, as in CoNLL-U."""


@dataclass(frozen=True)
class Entity:
    """An entity: its characters [start, end) of the text, its type, and the mean probability of its words' tags."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True)
class TaggedWords:
    """The words of each sentence, their tags and the probabilities of the tags.

    A word without a token (truncated, or with only characters that the tokenizer drops) has the probability 0, and the
    tag O for entity tags, otherwise "". `entities` are those marked by BIO tags; () for other tags.
    """

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...]
    probabilities: tuple[tuple[float, ...], ...] = ()
    texts: tuple[str, ...] = ()
    entities: tuple[tuple[Entity, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All words and all tags in one list each, the number of words of each sentence, and its entities."""
        return {
            "tokens": [word for sentence in self.words for word in sentence],
            "tags": [tag for sentence in self.tags for tag in sentence],
            "sentences": [len(sentence) for sentence in self.words],
            "probabilities": [value for sentence in self.probabilities for value in sentence],
            **({"entities": [[asdict(each) for each in found] for found in self.entities]} if self.entities else {}),
        }

    def records(self) -> list[dict[str, Any]]:
        """A dictionary for each sentence: text, tokens, tags, probabilities, and entities if the tags mark them."""
        entities = self.entities or [None] * len(self.words)
        columns = zip(self.texts, self.words, self.tags, self.probabilities, entities, strict=True)
        return [
            {
                "text": text,
                "tokens": list(words),
                "tags": list(tags),
                "probabilities": list(values),
                **({} if found is None else {"entities": [asdict(each) for each in found]}),
            }
            for text, words, tags, values, found in columns
        ]


def tag(
    model: str | Path | ModelWithTokenizer,
    text: str | Path | Sequence[str | Path],
    *,
    truncate: Truncate | None = None,
    stride: int | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
    int8: bool = False,
) -> TaggedWords:
    """Predict the tags of the words of texts or of files.

    Each line is a sentence, with words separated by white space; files with words (CoNLL, CoNLL-U, a column
    of tokens) keep their words. Sentences that exceed the context are truncated with `truncate`, or split into windows
    that start every `stride` tokens and whose probabilities are averaged. With `int8`, the linear layers of an
    encoder's blocks are rounded to 8 bits, which is faster on a CPU. Raises CannotDo for a model without tags,
    BadInput for a text without words, ContextOverflow for a sentence that is too long.
    """
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    network, tokenizer = load_model_and_tokenizer(model, device)
    sources = [text] if isinstance(text, str | Path) else text
    sentences = [each for source in sources for each in read_sentences(source, errors, text_field) if each.words]
    if not sentences:
        raise BadInput("there is no word to tag; give a text, or a file with one")
    if has_capability(network, Capability.CLASSIFIER):
        labels, predictions = classify_sentences(network, tokenizer, sentences, truncate, stride, batch_size, int8)
    else:
        tagger = tagger_of(network, tokenizer)
        labels, predictions = tagger.tags, predict_tags(tagger, [each.words for each in sentences])
    tags = [tuple("" if id == NO_PREDICTION else labels[id] for id in each.ids) for each in predictions]
    values = [tuple(each.of_labels.tolist()) for each in predictions]
    entities: list[tuple[Entity, ...]] = []
    if is_chunk_scheme(labels):
        entities = [entities_of(*each) for each in zip(sentences, tags, values, strict=True)]
    words, texts = tuple(each.words for each in sentences), tuple(each.text for each in sentences)
    return TaggedWords(words, tuple(tags), tuple(values), texts, tuple(entities))


def classify_sentences(
    network: Any,
    tokenizer: Tokenizer,
    sentences: Sequence[Sentence],
    truncate: Truncate | None,
    stride: int | None,
    batch_size: int,
    int8: bool = False,
) -> tuple[tuple[str, ...], list[WordPredictions]]:
    """The labels of a token classifier and its predictions. Raises CannotDo for a model that labels whole texts."""
    if network.config.label_level != "token":
        raise CannotDo("this model labels whole texts, not their words; use clearstory classify")
    windows = WordWindows(TextWindows.of_model(network, tokenizer, truncate, stride))
    parts = [windows.of_words(each.words, each.location) for each in sentences]
    counts = [len(each.words) for each in sentences]
    n_tokens = sum(len(each.ids) for part in parts for each in part)
    network = inference_encoder(network, int8=int8, n_tokens=n_tokens)
    return network.config.labels, predict_words(network, parts, counts, batch_size)


def entities_of(sentence: Sentence, tags: Sequence[str], probabilities: Sequence[float]) -> tuple[Entity, ...]:
    """The entities that the tags of a sentence mark.

    >>> from clearstory.tasks.data.words import split_words
    >>> entities_of(split_words("Ada Lovelace left"), ("B-PER", "I-PER", "O"), (0.75, 0.25, 1.0))
    (Entity(start=0, end=12, text='Ada Lovelace', label='PER', score=0.5),)
    """
    found = []
    for label, first, after in find_entities([each or OUTSIDE for each in tags]):
        start, end = sentence.spans[first][0], sentence.spans[after - 1][1]
        score = sum(probabilities[first:after]) / (after - first)
        found.append(Entity(start, end, sentence.text[start:end], label, score))
    return tuple(found)


def tagger_of(network: Any, tokenizer: Tokenizer) -> Tagger:
    """The tagger of an opened model. Raises CannotDo for a model without tags."""
    if not has_capability(network, Capability.TAGS):
        raise CannotDo(
            f"this model ({family_name(network)}) has no tags; train a tagger with: clearstory finetune MODEL "
            f"TEXT{CONLLU_SUFFIX} --task tag, where MODEL is this one, or hmm"
        )
    return Tagger(cast("HMM", network), tokenizer)


def write_tags(file: Path, tagged: TaggedWords) -> None:
    """Write tagged words as .conll (a word and its tag on each line, a blank line after each sentence), .jsonl (an
    object for each sentence) or a table, .csv or .tsv (a word with sentence, tag and probability in each row).

    `read_labeled_words` reads each of them. Raises BadSetting for another suffix.
    """
    match file.suffix:
        case ".conll":
            text = conll_text(tagged)
        case ".jsonl":
            text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in tagged.records())
        case ".csv" | ".tsv":
            stream = io.StringIO()
            writer = csv.writer(stream, delimiter="," if file.suffix == ".csv" else "\t", lineterminator="\n")
            writer.writerow(["sentence", "word", "tag", "probability"])
            columns = zip(tagged.words, tagged.tags, tagged.probabilities, strict=True)
            for number, sentence in enumerate(columns, start=1):
                writer.writerows([number, *row] for row in zip(*sentence, strict=True))
            text = stream.getvalue()
        case _:
            raise BadSetting(f"out is {file}; its suffix must be .conll, .jsonl, .csv or .tsv")
    durable.write_bytes(file, text.encode("utf-8", "surrogatepass"))


def conll_text(tagged: TaggedWords) -> str:
    """A word and its tag on each line, with a blank line after each sentence."""
    return "".join(
        "".join(f"{word}\t{tag or NO_TAG}\n" for word, tag in zip(words, tags, strict=True)) + "\n"
        for words, tags in zip(tagged.words, tagged.tags, strict=True)
    )
