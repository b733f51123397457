"""Suffix model: the tags of unknown words, from their last letters and their shape.

Brants 2000 (TnT), section 2.3: the tags of rare words with the same last letters, longer suffixes weighted more, words
with and without capitals apart. Where TnT weights by the variance of the tags, each suffix here has a Dirichlet prior
of `PRIOR_COUNT` counts distributed as the next shorter suffix's tags are: on the dev set of UD English-EWT it made less
than two words in a thousand of difference whether that was 1, 2 or 3, and suffixes up to 5, 6, 7 or 10 letters long.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.text.conllu import TaggedSentence

Floats = npt.NDArray[np.float64]

MAX_SUFFIX = 6
"""Length of the longest suffix in letters."""

MAX_RARE_COUNT = 10
"""Maximum count of a word for the suffix model: frequent words say little about unknown words (Brants 2000, section
2.3).
"""

PRIOR_COUNT = 3.0

WORD_SHAPES = ("capital", "capitals", "first", "digits", "digits and letters", "signs", "hyphen", "plain")
"""Shapes of words. "first" is a capitalised word that starts a sentence, where a capital says less."""


def word_shape(word: str, first: bool) -> int:
    """Index of the word's shape in WORD_SHAPES; `first`: whether it starts a sentence."""
    letters = any(map(str.isalpha, word))
    if any(map(str.isdigit, word)):
        name = "digits and letters" if letters else "digits"
    elif not letters:
        name = "signs"
    elif word[0].isupper():
        name = "capitals" if word.isupper() and len(word) > 1 else "first" if first else "capital"
    else:
        name = "hyphen" if "-" in word else "plain"
    return WORD_SHAPES.index(name)


def suffix_keys(word: str, first: bool) -> list[tuple[int, ...]]:
    """Keys of a word from general to specific: any word, its shape, its shape with ever longer suffixes.

    A key is a row of integers: the shape plus one (0: any), then MAX_SUFFIX letters, padded in front, the last one
    last.
    """
    shape, letters = word_shape(word, first) + 1, word.lower()
    longest = min(MAX_SUFFIX, len(letters))
    suffixes = [tuple(map(ord, letters[len(letters) - length :])) for length in range(longest + 1)]
    padded = ((shape, *(0,) * (MAX_SUFFIX - len(each)), *each) for each in suffixes)
    return [(0,) * (MAX_SUFFIX + 1), *padded]


def count_suffix_tags(sentences: Iterable[TaggedSentence], tags: Mapping[str, int]) -> dict[tuple[int, ...], Floats]:
    """Tag counts of rare words by suffix key, in the order of the keys."""
    sentences = list(sentences)
    word_counts = Counter(word for sentence in sentences for word in sentence.words)
    counts: dict[tuple[int, ...], Floats] = defaultdict(lambda: np.zeros(len(tags)))
    for sentence in sentences:
        for position, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True)):
            if word_counts[word] <= MAX_RARE_COUNT:
                for key in suffix_keys(word, position == 0):
                    counts[key][tags[tag]] += 1
    counts.setdefault((0,) * (MAX_SUFFIX + 1), np.zeros(len(tags)))
    return dict(sorted(counts.items()))


class SuffixModel:
    """Tag probabilities of words from their suffixes: keys (R, MAX_SUFFIX + 1) and tag counts (R, tags)."""

    def __init__(self, keys: Any, counts: Any) -> None:
        self.rows = {tuple(key): row for key, row in zip(keys.tolist(), np.asarray(counts, np.float64), strict=True)}

    def tag_probs(self, word: str, first: bool) -> Floats:
        """Probability of each tag given the word, (tags,); `first`: whether the word starts a sentence."""
        general, *keys = suffix_keys(word, first)
        counts = self.rows[general] + 1.0  # a new word may have a tag that no rare word has
        probs: Floats = counts / counts.sum()
        for key in keys:
            row = self.rows.get(key)
            if row is not None:
                probs = (row + PRIOR_COUNT * probs) / (row.sum() + PRIOR_COUNT)
        return probs


def other_capitalizations(word: str) -> Sequence[str]:
    """Other capitalisations of a word, the most trusted last: the sentence may have changed its own."""
    return [other for other in dict.fromkeys((word.capitalize(), word.lower())) if other != word]
