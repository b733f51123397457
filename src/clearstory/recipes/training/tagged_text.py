"""Part-of-speech tagged text as training data of an HMM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.models.hmm.tag_counts import TaggedText, TaggedTokens
from clearstory.text.conllu import TaggedSentence
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_tagged_documents
from clearstory.text.token_dataset import TokenDataset
from clearstory.text.tokenizers import Tokenizer


def add_tags(config: Any, corpus: Corpus, tokenizer: Tokenizer, dataset: TokenDataset) -> tuple[Any, TaggedTokens]:
    """The config of an HMM with one state per tag, and the training dataset with the tags of its sentences.

    Raises BadInput for untagged text, BadSetting for a tokenizer that does not split by words.
    """
    text = encode_tagged(training_sentences(corpus), tokenizer)
    return with_tags(config, text), TaggedTokens(dataset, text)


def encode_tagged(sentences: Sequence[TaggedSentence], tokenizer: Tokenizer) -> TaggedText:
    """The sentences with the ids of their words. Raises BadSetting for a tokenizer that does not split by words."""
    if tokenizer.kind != "words" or tokenizer.unk_token_id is None or tokenizer.eos_token_id is None:
        raise BadSetting(
            f"model.learn is tags, which needs words as tokens, but the tokenizer is {tokenizer.kind}; set tokenizer "
            "to words"
        )
    ids = tokenizer.encode_batch([sentence.text for sentence in sentences])
    return TaggedText(sentences, ids, tokenizer.unk_token_id, tokenizer.eos_token_id)


def with_tags(config: Any, text: TaggedText) -> Any:
    """The config of an HMM with a state for each tag of a text, and one for the end of a line."""
    return replace(config, states=len(text.tags) + 1, tags=text.tags, suffixes=len(text.suffixes))


def training_sentences(corpus: Corpus) -> Sequence[TaggedSentence]:
    """The sentences of the training split. Raises BadInput for untagged text."""
    documents = read_tagged_documents(corpus.sources, corpus.settings)
    if corpus.size > 1:
        return [
            sentence
            for number, sentences in enumerate(documents)
            if not corpus.held_out[number]
            for sentence in sentences
        ]
    kept, end = [], 0
    for sentence in (each for sentences in documents for each in sentences):
        end += len(sentence.text) + 1  # and the newline
        if end <= corpus.split_position + 1:
            kept.append(sentence)
    if not kept:
        raise BadInput(f"{corpus.name} has no complete sentence in its training split; give more text")
    return kept
