"""Tagging: from text whose words are tagged to a model of tags, from such a model to the tags of other text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.models.hmm.tagger import Tagger
from clearstory.models.hmm.tags import Tagged
from clearstory.recipes.inference.text_inputs import lines_of
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.text.conllu import CONLLU_SUFFIX, TaggedSentence
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_tagged_documents
from clearstory.text.files import Errors
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.settings import DataSettings
from clearstory.text.tokenizers import Tokenizer


def with_tags(config: Any, sentences: Sequence[TaggedSentence], tokenizer: Tokenizer, rows: TokenDataset) -> tuple[Any, Tagged]:
    """A config and rows to learn from, with the tags of the sentences."""
    if tokenizer.kind != "words" or tokenizer.unk_token_id is None or tokenizer.eos_token_id is None:
        raise BadSetting(
            f"model.learn is tags, which words have, and the tokenizer makes {tokenizer.kind}; set tokenizer to words"
        )
    spelt = tokenizer.encode_batch([sentence.text for sentence in sentences])
    told = Tagged(rows, sentences, spelt, tokenizer.unk_token_id, tokenizer.eos_token_id)
    changed = replace(config, states=len(told.tags) + 1, tags=told.tags, endings=len(told.endings))
    return changed, told


def training_sentences(corpus: Corpus) -> Sequence[TaggedSentence]:
    """The sentences of the training split. Raises BadInput for a text whose words have no tags."""
    documents = read_tagged_documents(corpus.sources, corpus.settings)
    if corpus.size > 1:
        return [each for number, found in enumerate(documents) if not corpus.held_out[number] for each in found]
    kept, place = [], 0
    for sentence in (each for found in documents for each in found):
        place += len(sentence.text) + 1  # with the line's end behind it
        if place <= corpus.cut + 1:
            kept.append(sentence)
    if not kept:
        raise BadInput(f"{corpus.name} has no whole sentence to learn from; give more of it")
    return kept


@dataclass(frozen=True)
class Tags:
    """Words with the tag of each, sentence by sentence."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data: all words and tags one behind the other, and how many each sentence has."""
        return {
            "tokens": [word for sentence in self.words for word in sentence],
            "tags": [tag for sentence in self.tags for tag in sentence],
            "sentences": [len(sentence) for sentence in self.words],
        }


def tag(model: str | Path | ModelWithTokenizer, text: str | Path, *, errors: Errors = "strict") -> Tags:
    """The tags of a text's words, or of a file's: of CoNLL-U the words as they stand, of other text what lies between
    white space, each line a sentence.

    Raises CannotDo for a model that has learnt no tags, BadInput for a text without words.
    """
    tagger = tagger_of(model)
    sentences = [sentence.split() for sentence in to_tag(text, errors)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise BadInput("there is no word to tag; give a text, or a file with one")
    tags = tagger.tag(sentences)
    return Tags(tuple(map(tuple, sentences)), tuple(map(tuple, tags)))


def to_tag(text: str | Path, errors: Errors) -> list[str]:
    """The sentences of a text or of the file that it names."""
    inside = lines_of(text, errors)
    return str(text).splitlines() if inside is None else inside


def tagger_of(model: str | Path | ModelWithTokenizer) -> Tagger:
    """The tagger of a model. Raises CannotDo for one that has learnt no tags."""
    network, tokenizer = load_model_and_tokenizer(model)
    config = getattr(network, "config", None)
    if not getattr(config, "tags", ()):
        family = getattr(config, "family", type(network).__name__)
        raise CannotDo(
            f"this model ({family}) has learnt no tags; one that tags is made by: "
            f"clearstory train TEXT{CONLLU_SUFFIX} --model hmm --model.learn tags"
        )
    return Tagger(network, tokenizer)


@dataclass(frozen=True)
class TagScore:
    """How many words got the tag that they have. Shares from 0 to 1; None where there is nothing to share.

    Args:
        accuracy: of all words.
        known_accuracy: of the words that the model has in its vocabulary.
        unknown_accuracy: of the others.
        macro_f1: the mean over tags of F1, each tag weighing the same.
        f1: of each tag.
        tokens: words.
        unknown: of these, those that are not in the vocabulary.
        sentences: how many there are.
        seconds: that tagging took.
    """

    accuracy: float
    known_accuracy: float | None
    unknown_accuracy: float | None
    macro_f1: float
    f1: dict[str, float]
    tokens: int
    unknown: int
    sentences: int
    seconds: float


def evaluate_tags(
    model: str | Path | ModelWithTokenizer, sources: str | Path | Sequence[str | Path], data: DataSettings | None = None
) -> TagScore:
    """How well a model tags text whose tags are known. Raises BadInput for text that is not CoNLL-U."""
    tagger = tagger_of(model)
    sentences = [sentence for document in read_tagged_documents(sources, data) for sentence in document]
    if not sentences:
        raise BadInput("there is no word to tag in this text; give a file with sentences in it")
    began = time.perf_counter()
    found = tagger.tag([sentence.words for sentence in sentences])
    seconds = time.perf_counter() - began
    right: Counter[bool] = Counter()
    every: Counter[bool] = Counter()
    hits, wanted, given = Counter[str](), Counter[str](), Counter[str]()
    for sentence, tags in zip(sentences, found, strict=True):
        for word, true, told in zip(sentence.words, sentence.tags, tags, strict=True):
            known = tagger.ids[word] != tagger.tokenizer.unk_token_id
            every[known] += 1
            right[known] += true == told
            wanted[true] += 1
            given[told] += 1
            hits[true] += true == told
    # 2 P R / (P + R), with P = hits / given and R = hits / wanted.
    f1 = {tag: 2 * hits[tag] / (wanted[tag] + given[tag]) for tag in sorted(wanted | given)}
    return TagScore(
        accuracy=right.total() / every.total(),
        known_accuracy=right[True] / every[True] if every[True] else None,
        unknown_accuracy=right[False] / every[False] if every[False] else None,
        macro_f1=sum(f1.values()) / len(f1),
        f1=f1,
        tokens=every.total(),
        unknown=every[False],
        sentences=len(sentences),
        seconds=seconds,
    )
