"""Pairs: a piece of text with the one that follows it, or with a stranger. Devlin et al. 2019, section 3.1.

Rows are sentences here: row s is ids[starts[s]:starts[s + 1]], and one of no tokens ends a document, as
`Corpus.encode(..., sentences=True)` has them. As in `Windows`, the i-th batch is a function of (rows, seed, i).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import TokenSequences, TokenBatch
from clearstory.training.batches import Batch
from clearstory.training.masking import Masking


class Pair(NamedTuple):
    """Two pieces ids[a:b] and ids[c:d], and whether they are strangers, or the second follows the first."""

    a: int
    b: int
    c: int
    d: int
    is_not_next: bool


class Pairs:
    """Batches of [CLS] one [SEP] other [SEP], some of their tokens hidden.

    A document is walked through from its beginning: as many sentences as fit are taken and cut in two at one of their
    ends, by lot; as often as not the second part makes room for a piece of another document that begins with a sentence
    drawn by lot, and the walk goes on with what it made room for. So both kinds are of like lengths.
    """

    def __init__(self, rows: TokenSequences, context: int, batch_size: int, seed: int, masking: Masking) -> None:
        if context < 8:
            raise BadSetting(
                f"a context of {context} tokens has no room for two texts; set training.context to 8 or more"
            )
        self.rows, self.masking = rows, masking
        self.batch_size, self.seed = batch_size, seed
        self.room = context - 3
        self.documents = [document for document in self.cut() if len(document) > 1]
        if len(self.documents) < 2:
            raise BadInput(
                "half of the time the next sentence is taken from another document, and a part of this text, learnt "
                f"from or held out, has {len(self.documents)}; give more documents (several files, or jsonl with one a "
                "line), or leave next-sentence out: --objective mlm"
            )
        if not any(len(document) > 2 for document in self.documents):
            raise BadInput(
                f"none of the {len(self.documents):,} documents has two sentences, so none follows another; "
                "give longer ones, or leave next-sentence out: --objective mlm"
            )
        self.kept: tuple[int, list[Pair]] | None = None
        self.per_epoch = len(self.epoch(0))

    def cut(self) -> list[list[int]]:
        """Each document as the places where its sentences begin, and its end; one too long for half the room is cut."""
        longest = self.room // 2
        found: list[list[int]] = []
        places: list[int] = []
        for start, stop in pairwise(np.asarray(self.rows.starts).tolist()):
            if start == stop:
                found.append([*places, start])
                places = []
            places += range(start, stop, longest)
        return found

    def epoch(self, number: int) -> list[Pair]:
        """All pairs of an epoch, shuffled."""
        if self.kept is None or self.kept[0] != number:
            rng = np.random.default_rng([self.seed, 1, number])
            pairs = [pair for own, places in enumerate(self.documents) for pair in self.walk(own, places, rng)]
            self.kept = number, [pairs[place] for place in rng.permutation(len(pairs))]
        return self.kept[1]

    def walk(self, own: int, places: list[int], rng: np.random.Generator) -> list[Pair]:
        """The pairs of one document."""
        found, at, last = [], 0, len(places) - 1
        while at + 2 <= last:
            end = min(bisect_right(places, places[at] + self.room) - 1, last)
            middle = int(rng.integers(at + 1, end))
            if rng.random() < 0.5:
                found.append(Pair(places[at], places[middle], places[middle], places[end], False))
                at = end
            else:
                room = self.room - (places[middle] - places[at])
                found.append(Pair(places[at], places[middle], *self.stranger(own, room, rng), True))
                at = middle
        return found

    def stranger(self, own: int, room: int, rng: np.random.Generator) -> tuple[int, int]:
        """Sentences of another document that fill the room as far as they can; of one that is longer, its beginning."""
        other = int(rng.integers(len(self.documents) - 1))
        places = self.documents[other + (other >= own)]
        begin = int(rng.integers(len(places) - 1))
        end = max(bisect_right(places, places[begin] + room) - 1, begin + 1)
        return places[begin], min(places[end], places[begin] + room)

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        places = range(number * self.batch_size, (number + 1) * self.batch_size)
        chosen = []
        for place in places:
            epoch = self.epoch(place // self.per_epoch)
            chosen.append(epoch[place % self.per_epoch % len(epoch)])
        lengths = [pair.b - pair.a + pair.d - pair.c + 3 for pair in chosen]
        ids = np.full((len(chosen), max(lengths)), self.masking.last, dtype=np.int64)
        segments = np.zeros_like(ids)
        for row, second, pair in zip(ids, segments, chosen, strict=True):
            middle, end = pair.b - pair.a + 2, pair.b - pair.a + 2 + pair.d - pair.c
            row[0] = self.masking.first
            row[1 : middle - 1] = self.rows.ids[pair.a : pair.b]
            row[middle:end] = self.rows.ids[pair.c : pair.d]
            second[middle : end + 1] = 1
        shown, targets = self.masking.draw(ids, np.random.default_rng([self.seed, 2, number]))
        return Batch(
            TokenBatch(torch.from_numpy(shown), torch.tensor(lengths)),
            torch.from_numpy(targets),
            torch.from_numpy(segments),
            torch.tensor([int(pair.is_not_next) for pair in chosen]),
        )

    def continues(self, number: int) -> bool:
        """Never: pairs are shuffled."""
        return False
