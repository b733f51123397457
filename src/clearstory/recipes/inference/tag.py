"""Tag: the tag of each word, predicted by a fine-tuned token classifier or by a hidden Markov model of tags."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from clearstory.errors import BadInput, CannotDo
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.hmm.model import HMM
from clearstory.models.hmm.tagger import Tagger
from clearstory.recipes.inference.classify import classify_words
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.text_inputs import texts_in_file
from clearstory.tasks.text_windows import TextWindows
from clearstory.tasks.word_windows import WordWindows
from clearstory.text.character_encodings import Errors
from clearstory.text.conllu import CONLLU_SUFFIX, TaggedSentence
from clearstory.text.documents import read_tagged_documents
from clearstory.text.settings import ReadSettings
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class TaggedWords:
    """The words of each sentence and their tags, "" for a word without a token.

    `probabilities` are those of the tags by a token classifier; () of a hidden Markov model.
    """

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...]
    probabilities: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All words and all tags in one list each, and the number of words of each sentence."""
        values = [value for sentence in self.probabilities for value in sentence]
        return {
            "tokens": [word for sentence in self.words for word in sentence],
            "tags": [tag for sentence in self.tags for tag in sentence],
            "sentences": [len(sentence) for sentence in self.words],
            **({"probabilities": values} if values else {}),
        }


def tag(model: str | Path | ModelWithTokenizer, text: str | Path, *, errors: Errors = "strict") -> TaggedWords:
    """The tags of the words of a text or of a file.

    Words are separated by white space and each line is a sentence; a conllu file is read with its own words. A token
    classifier reads a sentence that is longer than its context in windows that overlap by half. Raises CannotDo for a
    model without tags, BadInput for a text without words.
    """
    network, tokenizer = load_model_and_tokenizer(model)
    in_file = texts_in_file(text, errors)
    lines = str(text).splitlines() if in_file is None else in_file
    sentences = [words for line in lines if (words := line.split())]
    if not sentences:
        raise BadInput("there is no word to tag; give a text, or a file with one")
    if has_capability(network, Capability.CLASSIFIER):
        return tag_with_classifier(network, tokenizer, sentences)
    tags = tagger_of(network, tokenizer).tag(sentences)
    return TaggedWords(tuple(map(tuple, sentences)), tuple(map(tuple, tags)))


def tag_with_classifier(network: Any, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> TaggedWords:
    """The likeliest label of each word with its probability. Raises CannotDo for a model that labels whole texts."""
    if network.config.label_level != "token":
        raise CannotDo("this model labels whole texts, not their words; use clearstory classify")
    windows = TextWindows.of_model(network, tokenizer)
    if windows.context is not None:
        before, _, after = windows.special_ids
        windows = replace(windows, stride=max(1, (windows.context - len(before) - len(after)) // 2))
    found = classify_words(network, [" ".join(words) for words in sentences], WordWindows(windows), batch_size=32)
    return TaggedWords(
        tuple(map(tuple, sentences)),
        tuple(tuple(word.label or "" for word in each.words) for each in found),
        tuple(tuple(word.probability or 0.0 for word in each.words) for each in found),
    )


def load_tagger(model: str | Path | ModelWithTokenizer) -> Tagger:
    """The tagger of a model. Raises CannotDo for a model without tags."""
    return tagger_of(*load_model_and_tokenizer(model))


def tagger_of(network: Any, tokenizer: Tokenizer) -> Tagger:
    """The tagger of an opened model. Raises CannotDo for a model without tags."""
    if not has_capability(network, Capability.TAGS):
        raise CannotDo(
            f"this model ({family_name(network)}) has no tags; train one that has with: "
            f"clearstory train TEXT{CONLLU_SUFFIX} --model hmm --model.learn tags, or clearstory finetune MODEL "
            f"TEXT{CONLLU_SUFFIX} --task tag"
        )
    return Tagger(cast("HMM", network), tokenizer)


@dataclass(frozen=True)
class TagScore:
    """Accuracy of predicted tags: fractions from 0 to 1, None for a fraction of nothing.

    Args:
        accuracy: of all words.
        known_accuracy: of the words in the vocabulary of the model.
        unknown_accuracy: of all other words.
        macro_f1: unweighted mean of `f1`.
        f1: F1 of each tag.
        tokens: number of words.
        unknown: number of words that are not in the vocabulary.
        sentences: number of sentences.
        seconds: time that tagging took.
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
    model: str | Path | ModelWithTokenizer, sources: str | Path | Sequence[str | Path], data: ReadSettings | None = None
) -> TagScore:
    """Accuracy of a model on tagged text; `data`: how files are read. Raises BadInput for text that is not CoNLL-U."""
    tagger = load_tagger(model)
    sentences = [sentence for document in read_tagged_documents(sources, data) for sentence in document]
    if not sentences:
        raise BadInput("there is no word to tag in this text; give a file with sentences in it")
    started = time.perf_counter()
    predicted = tagger.tag([sentence.words for sentence in sentences])
    return score_tags(tagger, sentences, predicted, time.perf_counter() - started)


def score_tags(
    tagger: Tagger, sentences: Sequence[TaggedSentence], predicted: Sequence[Sequence[str]], seconds: float
) -> TagScore:
    """Accuracy and F1 of the predicted tags of each sentence."""
    words: Counter[bool] = Counter()  # by whether a word is in the vocabulary
    correct: Counter[bool] = Counter()
    true_tags, predicted_tags, correct_tags = Counter[str](), Counter[str](), Counter[str]()
    for sentence, tags in zip(sentences, predicted, strict=True):
        for word, true_tag, predicted_tag in zip(sentence.words, sentence.tags, tags, strict=True):
            is_known = tagger.ids[word] != tagger.tokenizer.unk_token_id
            words[is_known] += 1
            correct[is_known] += true_tag == predicted_tag
            true_tags[true_tag] += 1
            predicted_tags[predicted_tag] += 1
            correct_tags[true_tag] += true_tag == predicted_tag
    # F1 = 2 P R / (P + R), with P = correct / predicted and R = correct / true.
    f1 = {
        tag: 2 * correct_tags[tag] / (true_tags[tag] + predicted_tags[tag])
        for tag in sorted(true_tags | predicted_tags)
    }
    return TagScore(
        accuracy=correct.total() / words.total(),
        known_accuracy=correct[True] / words[True] if words[True] else None,
        unknown_accuracy=correct[False] / words[False] if words[False] else None,
        macro_f1=sum(f1.values()) / len(f1),
        f1=f1,
        tokens=words.total(),
        unknown=words[False],
        sentences=len(sentences),
        seconds=seconds,
    )
