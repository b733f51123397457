"""Endings: what tag a word has that was never seen, told from how it ends and what it looks like.

Brants 2000 (TnT), section 2.3: the tags of rare words with the same last letters, longer endings trusted more, words
with and without capitals apart. Where he weighs by the spread of the tags, each ending here has a Dirichlet prior of
`TRUST` counts spread as the next shorter one's tags are: on the dev set of UD English-EWT it made no difference of two
words in a thousand whether that was 1, 2 or 3, and endings up to 5, 6, 7 or 10 letters long.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.text.conllu import TaggedSentence

Numbers = npt.NDArray[np.float64]

LONGEST = 6
RARE = 10
"""Words seen more often say little about words never seen (Brants 2000, section 2.3)."""
TRUST = 3.0

SHAPES = ("capital", "capitals", "first", "digits", "digits and letters", "signs", "hyphen", "plain")
"""What a word looks like. A capital says less where a sentence begins."""


def word_shape(word: str, first: bool) -> int:
    """Which of the shapes a word has."""
    letters = any(map(str.isalpha, word))
    if any(map(str.isdigit, word)):
        name = "digits and letters" if letters else "digits"
    elif not letters:
        name = "signs"
    elif word[0].isupper():
        name = "capitals" if word.isupper() and len(word) > 1 else "first" if first else "capital"
    else:
        name = "hyphen" if "-" in word else "plain"
    return SHAPES.index(name)


def suffix_keys(word: str, first: bool) -> list[tuple[int, ...]]:
    """The rows that know something of a word, the most general first: any word, its shape, its ever longer endings.

    A row of a table of whole numbers: the shape plus one (0: any), then the letters, the last one last.
    """
    shape, letters = word_shape(word, first) + 1, word.lower()
    longest = min(LONGEST, len(letters))
    ends = [tuple(map(ord, letters[len(letters) - length :])) for length in range(longest + 1)]
    return [(0,) * (LONGEST + 1), *((shape, *(0,) * (LONGEST - len(end)), *end) for end in ends)]


def count_suffix_tags(sentences: Iterable[TaggedSentence], tags: Mapping[str, int]) -> dict[tuple[int, ...], Numbers]:
    """The tags of rare words, ending by ending, in the order of the rows."""
    sentences = list(sentences)
    often = Counter(word for sentence in sentences for word in sentence.words)
    found: dict[tuple[int, ...], Numbers] = defaultdict(lambda: np.zeros(len(tags)))
    for sentence in sentences:
        for place, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True)):
            if often[word] <= RARE:
                for key in suffix_keys(word, place == 0):
                    found[key][tags[tag]] += 1
    found.setdefault((0,) * (LONGEST + 1), np.zeros(len(tags)))
    return dict(sorted(found.items()))


class SuffixModel:
    """The table, ready to be asked."""

    def __init__(self, keys: Any, counts: Any) -> None:
        self.rows = {tuple(key): row for key, row in zip(keys.tolist(), np.asarray(counts, np.float64), strict=True)}

    def tag_probs(self, word: str, first: bool) -> Numbers:
        """How likely each tag is, given the word."""
        general, *keys = suffix_keys(word, first)
        counts = self.rows[general] + 1.0  # a tag that no rare word has may be had by a new one
        chances: Numbers = counts / counts.sum()
        for key in keys:
            row = self.rows.get(key)
            if row is not None:
                chances = (row + TRUST * chances) / (row.sum() + TRUST)
        return chances


def other_capitalizations(word: str) -> Sequence[str]:
    """Other ways to write a word whose capitals may be the sentence's: the last one given is believed the most."""
    return [other for other in dict.fromkeys((word.capitalize(), word.lower())) if other != word]
