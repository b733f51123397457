"""Tags: a model of one state a tag, counted from text whose words are tagged, and of one more for the line's end.

Brants 2000 (TnT), section 2: the tags are a chain of bigrams or trigrams, each word is spoken by its tag. The text that
such a model reads is lines of words, so the end of a line is a word too: the last state speaks it and nothing else, and
where sentences begin and end needs no rule of its own.
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
from clearstory.models.hmm.suffixes import SuffixModel, count_suffix_tags
from clearstory.text.conllu import TaggedSentence

Numbers = npt.NDArray[np.float64]

NEVER = 1e-6
"""Instead of zero, where no tag speaks a line's end, and the line's end no word."""

OWN = 1.0
"""How many times a word must be seen to say as much of its tags as its ending does."""


@dataclass(frozen=True)
class TaggedTokens:
    """Documents whose words are tagged. `spelt` are the ids of each sentence's words, `end` that of a line's end."""

    rows: TokenSequences
    sentences: Sequence[TaggedSentence]
    spelt: Sequence[Sequence[int]]
    unknown: int
    end: int

    @property
    def ids(self) -> Any:
        """(N,)"""
        return self.rows.ids

    @property
    def starts(self) -> Any:
        """(D + 1,)"""
        return self.rows.starts

    @property
    def byte_lengths(self) -> Any:
        """(V,)"""
        return self.rows.byte_lengths

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Every tag there is."""
        return tuple(sorted({tag for sentence in self.sentences for tag in sentence.tags}))

    @cached_property
    def endings(self) -> dict[tuple[int, ...], Numbers]:
        """The tags of rare words by how they end."""
        return count_suffix_tags(self.sentences, {tag: number for number, tag in enumerate(self.tags)})


@torch.no_grad()
def fit_tag_counts(model: Any, text: TaggedTokens) -> None:
    """Set a model's parameters to what the text says."""
    order, size = model.config.order, model.config.states
    numbers = {tag: number for number, tag in enumerate(text.tags)}
    told = [[numbers[tag] for tag in sentence.tags] for sentence in text.sentences]
    chances = interpolate_tag_ngrams(told, size)[order - 2]
    model.transition.copy_(torch.from_numpy(np.log(chances)))
    first = np.full(size, NEVER)
    first[-1] = 1.0
    model.initial.copy_(torch.from_numpy(np.log(first / first.sum())))
    model.endings.copy_(torch.tensor(list(text.endings)))
    model.ended.copy_(torch.from_numpy(np.stack(list(text.endings.values()))))
    joint = joint_word_tag_probs(text, told, model.vocab, size, SuffixModel(model.endings, model.ended))
    shares = joint.sum(0)
    model.emission.copy_(torch.from_numpy(np.log(joint / shares)))
    model.shares.copy_(torch.from_numpy(shares / shares.sum()))


def joint_word_tag_probs(
    text: TaggedTokens, told: Sequence[Sequence[int]], vocab: int, size: int, endings: SuffixModel
) -> Numbers:
    """How likely each word is together with each state, (V, states), everywhere above zero.

    p(word, tag) = p(word) p(tag | word), the tags of a word that is seldom eked out by those of its ending. A word
    never seen is as likely as those seen once are together (Good 1953), and has their tags.
    """
    counts = np.zeros((vocab, size))
    spelling: dict[int, str] = {}
    for sentence, ids, tags in zip(text.sentences, text.spelt, told, strict=True):
        np.add.at(counts, (np.asarray(ids), np.asarray(tags)), 1.0)
        spelling.update(zip(ids, sentence.words, strict=True))
    counts[text.end, -1] = len(text.sentences)
    once = counts[(counts.sum(1) == 1) & (np.arange(vocab) != text.unk_token_id)]
    counts[text.unk_token_id] += once.sum(0)
    spelling.pop(text.unk_token_id, None)
    for id, word in spelling.items():
        seen = counts[id].sum()
        likely = np.append(endings.tag_probs(word, False), 0.0)
        counts[id] = (counts[id] + OWN * likely) * seen / (seen + OWN)
    return counts + NEVER


def interpolate_tag_ngrams(told: Sequence[Sequence[int]], size: int) -> tuple[Numbers, Numbers]:
    """p(next | tag) (S, S), and p(next | two tags) (S, S, S), by deleted interpolation: Brants 2000, section 2.2.

    Every sentence is read after a line's end and before one; behind it, what came before is forgotten.
    """
    end = size - 1
    triples = np.zeros((size, size, size))
    for tags in told:
        path = np.array([end, end, *tags, end])
        np.add.at(triples, (path[:-2], path[1:-1], path[2:]), 1.0)
    # Tags that have never stood somewhere still may: half a count for each.
    pairs, singles = triples.sum(0), triples.sum((0, 1)) + 0.5
    one = singles / singles.sum()
    two, known = normalize_counts(pairs), pairs.sum(1, keepdims=True) > 0
    three, seen = normalize_counts(triples), triples.sum(2, keepdims=True) > 0
    votes = np.ones((2, 3))
    for i, j, k in zip(*np.nonzero(triples), strict=True):
        rest = (
            (singles[k] - 1) / (singles.sum() - 1),
            leave_one_out(pairs[j, k], pairs[j].sum()),
            leave_one_out(triples[i, j, k], triples[i, j].sum()),
        )
        for row, most in zip(votes, (2, 3), strict=True):
            row[max((rest[place], place) for place in range(most))[1]] += triples[i, j, k]
    w1, w2 = votes[0, :2] / votes[0, :2].sum()
    bigrams = np.where(known, w1 * one + w2 * two, one)
    w1, w2, w3 = votes[1] / votes[1].sum()
    trigrams = np.where(seen, w1 * one + w2 * two + w3 * three, bigrams)
    trigrams[:, end] = trigrams[end, end]
    return bigrams, trigrams


def normalize_counts(counts: Numbers) -> Numbers:
    """Counts over their sums along the last axis; 0 where there are none."""
    shares: Numbers = counts / np.maximum(counts.sum(-1, keepdims=True), 1.0)
    return shares


def leave_one_out(count: float, total: float) -> float:
    """What a maximum-likelihood estimate says of an event once this one case of it is taken away."""
    return (count - 1) / (total - 1) if total > 1 else 0.0
