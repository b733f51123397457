"""Tagger: the likeliest tags of sentences, by a model that has counted them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput
from clearstory.models.hmm.decoding import viterbi
from clearstory.models.hmm.suffixes import SuffixModel, other_capitalizations

BATCH_SIZE = 64
"""Sentences of one length that are read side by side."""

OTHERWISE = {True: 0.8, False: 0.2}
"""How far the tags of a word in other capitals are believed: where a sentence begins or all is in capitals, elsewhere.
Measured on the dev set of UD English-EWT; from 0.6 to 0.9 and from 0.2 to 0.4 it makes no difference of one in a
thousand words, without it (0) the trigrams lose one.
"""


class WordTokenizer(Protocol):
    """The part of a tokenizer of words that a tagger needs."""

    @property
    def unk_token_id(self) -> int | None:
        """The id of words that are not known."""

    @property
    def eos_token_id(self) -> int | None:
        """The id of a line's end."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts."""


class Tagger:
    """Tags words with a model's own tags."""

    def __init__(self, model: Any, tokenizer: WordTokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.tags: tuple[str, ...] = model.config.tags
        self.endings = SuffixModel(model.endings, model.ended)
        self.shares = model.shares.double().cpu().numpy()
        self.words = model.emission.detach().double().log_softmax(0).cpu()
        self.ids: dict[str, int] = {}

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """A tag for each word of each sentence. Raises BadInput for a word with white space in it, or nothing."""
        self.look_up({word for sentence in sentences for word in sentence})
        found: dict[int, list[str]] = {}
        for group in self.groups(sentences):
            logs = torch.stack([self.speaking(sentences[place]) for place in group])
            paths, _ = viterbi(*self.ways(), logs)
            for place, path in zip(group, paths[:, 1:-1].tolist(), strict=True):
                found[place] = [self.tags[state] for state in path]
        return [found[place] for place in range(len(sentences))]

    def groups(self, sentences: Sequence[Sequence[str]]) -> Iterator[list[int]]:
        """Places of sentences of one length, so that nothing is padding."""
        of_length: dict[int, list[int]] = defaultdict(list)
        for place, sentence in enumerate(sentences):
            of_length[len(sentence)].append(place)
        for places in of_length.values():
            for at in range(0, len(places), BATCH_SIZE):
                yield places[at : at + BATCH_SIZE]

    def ways(self) -> tuple[Float[Tensor, "P K"], Float[Tensor, "P K K"]]:
        """How paths begin and go on, as logarithms."""
        first = self.model.initial.detach().double().log_softmax(0)
        ways = self.model.transition.detach().double().log_softmax(-1)
        return (first + first[:, None], ways) if ways.ndim == 3 else (first[None], ways[None])

    def speaking(self, sentence: Sequence[str]) -> Float[Tensor, "T K"]:
        """The logarithm of how likely each state speaks each word, but for a factor that is each word's own.

        A line's end stands before and behind: where sentences begin and end is a matter of tags like any other.
        """
        end = self.words[self.tokenizer.eos_token_id]
        return torch.stack([end, *(self.spoken(word, place == 0) for place, word in enumerate(sentence)), end])

    def spoken(self, word: str, first: bool) -> Float[Tensor, "K"]:
        """The same for one word; of one that is not known, by Bayes' rule from its likely tags."""
        id = self.ids[word]
        if id != self.tokenizer.unk_token_id:
            known_well: Tensor = self.words[id]
            return known_well
        chances = self.endings.tag_probs(word, first)
        for other in other_capitalizations(word):
            if (known := self.ids[other]) != self.tokenizer.unk_token_id:
                share = OTHERWISE[first or word.isupper()]
                tags = self.words[known].exp().numpy()[:-1] * self.shares[:-1]
                chances = share * tags / tags.sum() + (1 - share) * chances
        never = np.append(np.log(chances / self.shares[:-1]), -np.inf)
        return torch.from_numpy(never)

    def look_up(self, words: set[str]) -> None:
        """Learn the ids of words and of their other spellings."""
        new = sorted({each for word in words for each in (word, *other_capitalizations(word))} - self.ids.keys())
        for word, ids in zip(new, self.tokenizer.encode_batch(new), strict=True):
            if len(ids) != 1:
                raise BadInput(f"{word!r} is not one word of this model's tokenizer; give words without white space")
            self.ids[word] = ids[0]
