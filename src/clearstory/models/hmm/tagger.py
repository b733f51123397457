"""Tagger: the most likely tags of sentences, by a hidden Markov model fitted to tag counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.models.hmm.chain import HMMParameters
from clearstory.models.hmm.decoding import path_posteriors, viterbi
from clearstory.models.hmm.suffixes import SuffixModel, other_capitalizations
from clearstory.models.tag_paths import bio_log_transitions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH_SIZE = 64
"""Number of sentences of the same length that are decoded together."""

OTHER_CAPITALIZATION_WEIGHT = {True: 0.8, False: 0.2}
"""Weight of the tags of a known word in other capitals: where a sentence starts or all is in capitals, and elsewhere.
Measured on the dev set of UD English-EWT; from 0.6 to 0.9 and from 0.2 to 0.4 it makes less than one word in a thousand
of difference, without it (0) the trigrams lose one.
"""


class WordTokenizer(Protocol):
    """Interface of a word tokenizer for a tagger."""

    @property
    def unk_token_id(self) -> int | None:
        """The id of unknown words."""

    @property
    def eos_token_id(self) -> int | None:
        """The id of the end of a line."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts."""


class Tagger:
    """Tags words with the tags of a fitted model."""

    def __init__(self, model: HMMParameters, tokenizer: WordTokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.tags: tuple[str, ...] = model.config.tags
        self.suffix_model = SuffixModel(model.suffixes, model.suffix_tag_counts)
        self.state_priors = model.state_priors.double().cpu().numpy()
        self.emission = model.emission.detach().double().log_softmax(0).cpu()
        self.ids: dict[str, int] = {}

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """A tag for each word of each sentence. Raises BadInput for a word that is empty or holds white space."""
        return [[self.tags[id] for id in ids] for ids, _ in self.predict(sentences)]

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[tuple[Ints, Floats]]:
        """For each sentence the ids of the most likely sequence of tags, (words,), and the posterior of every tag of
        each word, (words, tags). Raises BadInput for a word that is empty or holds white space.
        """
        self.look_up({word for sentence in sentences for word in sentence})
        found: dict[int, tuple[Ints, Floats]] = {}
        chain = self.initial_and_transition()
        for group in self.group_by_length(sentences):
            emission = torch.stack([self.sentence_emission(sentences[index]) for index in group])
            paths, _ = viterbi(*chain, emission)
            chances = path_posteriors(*chain, emission)[:, 1:-1, :-1]
            for index, path, values in zip(group, paths[:, 1:-1], chances, strict=True):
                found[index] = path.numpy(), values.numpy()
        return [found[index] for index in range(len(sentences))]

    def group_by_length(self, sentences: Sequence[Sequence[str]]) -> Iterator[list[int]]:
        """Batches of indices of sentences of equal length, so that nothing is padding."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for index, sentence in enumerate(sentences):
            of_length[len(sentence)].append(index)
        for indices in of_length.values():
            for at in range(0, len(indices), BATCH_SIZE):
                yield indices[at : at + BATCH_SIZE]

    def initial_and_transition(self) -> tuple[Float[Tensor, "P K"], Float[Tensor, "P K K"]]:
        """Initial and transition log-probabilities in the form that `viterbi` takes.

        Tags of entities follow each other as BIO has it, which smoothed counts alone do not ensure.
        """
        initial = self.model.initial.detach().double().log_softmax(0).cpu()
        transition = self.model.transition.detach().double().log_softmax(-1).cpu()
        start, follows = bio_log_transitions(self.tags)
        transition[..., :-1, :-1] += follows
        transition[..., -1, :-1] += start  # after the end of a line
        if transition.ndim == 3:
            return initial + initial[:, None], transition
        return initial[None], transition[None]

    def sentence_emission(self, sentence: Sequence[str]) -> Float[Tensor, "T K"]:
        """Log-probability of each word from each state, (words + 2, states), up to a factor of each word.

        A line end precedes and follows: where sentences start and end is a matter of tags like any other.
        """
        end_token_id = self.tokenizer.eos_token_id
        assert end_token_id is not None, "a word tokenizer has a token for the end of a line"
        end = self.emission[end_token_id]
        words = (self.word_emission(word, position == 0) for position, word in enumerate(sentence))
        return torch.stack([end, *words, end])

    def word_emission(self, word: str, first: bool) -> Float[Tensor, "K"]:
        """Log-probability of a word from each state, (states,); for unknown words by Bayes' rule from suffixes."""
        id = self.ids[word]
        if id != self.tokenizer.unk_token_id:
            known: Tensor = self.emission[id]
            return known
        probs = self.suffix_model.tag_probs(word, first)
        for other in other_capitalizations(word):
            if (other_id := self.ids[other]) != self.tokenizer.unk_token_id:
                weight = OTHER_CAPITALIZATION_WEIGHT[first or word.isupper()]
                tags = self.emission[other_id].exp().numpy()[:-1] * self.state_priors[:-1]
                probs = weight * tags / tags.sum() + (1 - weight) * probs
        emission = np.append(np.log(probs / self.state_priors[:-1]), -np.inf)
        return torch.from_numpy(emission)

    def look_up(self, words: set[str]) -> None:
        """Store the ids of words and of their other capitalisations."""
        new = sorted({each for word in words for each in (word, *other_capitalizations(word))} - self.ids.keys())
        for word, ids in zip(new, self.tokenizer.encode_batch(new), strict=True):
            if len(ids) != 1:
                raise BadInput(f"{word!r} is not one word of this model's tokenizer; give words without white space")
            self.ids[word] = ids[0]
