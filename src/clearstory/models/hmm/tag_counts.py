"""Tag counts: a tagger's parameters, counted from text whose words are tagged. Brants 2000 (TnT), section 2.

Tags are a chain of bigrams or trigrams, and each word is emitted by its tag. The text is lines of words, so the end of
a line is a word too: it has a state of its own that emits nothing else, and sentence starts and ends need no special
rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearstory.models.base import TokenSequences
from clearstory.models.hmm.chain import HMMParameters
from clearstory.models.hmm.suffixes import SuffixModel, count_suffix_tags
from clearstory.text.conllu import TaggedSentence

Floats = npt.NDArray[np.float64]

TINY = 1e-6
"""Instead of zero: counts of line ends from tags, and of words from the line end's state."""

SUFFIX_COUNT = 1.0
"""Pseudo-counts with which a word's suffixes add to its own tag counts."""


@dataclass(frozen=True)
class TaggedText:
    """Sentences whose words are tagged.

    Args:
        sentences: words and tags.
        word_ids: token ids of each sentence's words.
        unk_token_id: id of unknown words.
        end_token_id: id of the end of a line.
    """

    sentences: Sequence[TaggedSentence]
    word_ids: Sequence[Sequence[int]]
    unk_token_id: int
    end_token_id: int

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The names of all tags, sorted."""
        return tuple(sorted({tag for sentence in self.sentences for tag in sentence.tags}))

    @cached_property
    def suffixes(self) -> dict[tuple[int, ...], Floats]:
        """Tag counts of rare words by suffix."""
        return count_suffix_tags(self.sentences, {tag: index for index, tag in enumerate(self.tags)})


@dataclass(frozen=True)
class TaggedTokens:
    """Documents as token ids, and the tags of their sentences."""

    dataset: TokenSequences
    text: TaggedText

    @property
    def ids(self) -> Any:
        """Token ids of all documents, (N,)."""
        return self.dataset.ids

    @property
    def starts(self) -> Any:
        """Index of each document's first token, and N, (D + 1,)."""
        return self.dataset.starts

    @property
    def byte_lengths(self) -> Any:
        """Bytes of text that each token stands for, (V,)."""
        return self.dataset.byte_lengths

    @property
    def document_bytes(self) -> Any:
        """Bytes of each document's text, (D,)."""
        return self.dataset.document_bytes


@torch.no_grad()
def fit_tag_counts(model: HMMParameters, text: TaggedText) -> None:
    """Set a tagger's parameters from a tagged text."""
    order, size = model.config.order, model.config.states
    indices = {tag: index for index, tag in enumerate(text.tags)}
    tag_ids = [[indices[tag] for tag in sentence.tags] for sentence in text.sentences]
    transition = interpolate_tag_ngrams(tag_ids, size)[order - 2]
    model.transition.copy_(torch.from_numpy(np.log(transition)))
    initial = np.full(size, TINY)
    initial[-1] = 1.0
    model.initial.copy_(torch.from_numpy(np.log(initial / initial.sum())))
    model.suffixes.copy_(torch.tensor(list(text.suffixes)))
    model.suffix_tag_counts.copy_(torch.from_numpy(np.stack(list(text.suffixes.values()))))
    suffix_model = SuffixModel(model.suffixes, model.suffix_tag_counts)
    joint = joint_word_tag_counts(text, tag_ids, model.vocab, size, suffix_model)
    state_counts = joint.sum(0)
    model.emission.copy_(torch.from_numpy(np.log(joint / state_counts)))
    model.state_priors.copy_(torch.from_numpy(state_counts / state_counts.sum()))


def joint_word_tag_counts(
    text: TaggedText, tag_ids: Sequence[Sequence[int]], vocab: int, size: int, suffix_model: SuffixModel
) -> Floats:
    """Smoothed count of each word with each state, (V, states), positive everywhere.

    p(word, tag) = p(word) p(tag | word), where the tags of a rare word are smoothed by those of its suffixes. An
    unknown word is as likely as all words seen once together (Good 1953), and has their tags.
    """
    counts = np.zeros((vocab, size))
    words: dict[int, str] = {}
    for sentence, ids, tags in zip(text.sentences, text.word_ids, tag_ids, strict=True):
        np.add.at(counts, (np.asarray(ids), np.asarray(tags)), 1.0)
        words.update(zip(ids, sentence.words, strict=True))
    counts[text.end_token_id, -1] = len(text.sentences)
    seen_once = counts[(counts.sum(1) == 1) & (np.arange(vocab) != text.unk_token_id)]
    counts[text.unk_token_id] += seen_once.sum(0)
    words.pop(text.unk_token_id, None)
    for id, word in words.items():
        seen = counts[id].sum()
        from_suffix = np.append(suffix_model.tag_probs(word, False), 0.0)
        counts[id] = (counts[id] + SUFFIX_COUNT * from_suffix) * seen / (seen + SUFFIX_COUNT)
    return counts + TINY


def interpolate_tag_ngrams(tag_ids: Sequence[Sequence[int]], size: int) -> tuple[Floats, Floats]:
    """p(next | tag), (S, S), and p(next | two tags), (S, S, S), by deleted interpolation: Brants 2000, section 2.2.

    Every sentence stands between two line ends; after a line end, what came before it is forgotten.
    """
    end = size - 1
    trigrams = np.zeros((size, size, size))
    for tags in tag_ids:
        path = np.array([end, end, *tags, end])
        np.add.at(trigrams, (path[:-2], path[1:-1], path[2:]), 1.0)
    # Unseen tags stay possible: half a count for each.
    bigrams, unigrams = trigrams.sum(0), trigrams.sum((0, 1)) + 0.5
    p1 = unigrams / unigrams.sum()
    p2, seen2 = normalize_counts(bigrams), bigrams.sum(1, keepdims=True) > 0
    p3, seen3 = normalize_counts(trigrams), trigrams.sum(2, keepdims=True) > 0
    votes = np.ones((2, 3))
    for i, j, k in zip(*np.nonzero(trigrams), strict=True):
        rest = (
            (unigrams[k] - 1) / (unigrams.sum() - 1),
            leave_one_out(bigrams[j, k], bigrams[j].sum()),
            leave_one_out(trigrams[i, j, k], trigrams[i, j].sum()),
        )
        for row, most in zip(votes, (2, 3), strict=True):
            row[max((rest[index], index) for index in range(most))[1]] += trigrams[i, j, k]
    w1, w2 = votes[0, :2] / votes[0, :2].sum()
    bigram_probs = np.where(seen2, w1 * p1 + w2 * p2, p1)
    w1, w2, w3 = votes[1] / votes[1].sum()
    trigram_probs = np.where(seen3, w1 * p1 + w2 * p2 + w3 * p3, bigram_probs)
    trigram_probs[:, end] = trigram_probs[end, end]
    return bigram_probs, trigram_probs


def normalize_counts(counts: Floats) -> Floats:
    """Counts divided by their sums along the last axis; 0 where the sum is 0."""
    probs: Floats = counts / np.maximum(counts.sum(-1, keepdims=True), 1.0)
    return probs


def leave_one_out(count: float, total: float) -> float:
    """Maximum-likelihood estimate of an event without one occurrence of it."""
    return (count - 1) / (total - 1) if total > 1 else 0.0
