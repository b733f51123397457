"""Sources: batches of texts with what is to be made of them, for models that read one and write the other.

Paired takes both as they are given. Spans makes both out of running text: some of it is dropped, and asked for.
Both are functions of (rows, seed, number), as all batches are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import IGNORE_INDEX, TokenSequences, TokenBatch
from clearstory.training.batches import Batch, Rows, Windows

Places = npt.NDArray[np.int64]

POOL = 64
"""Batches that are sorted by length together: padding falls from a third of all tokens to a twentieth."""


def batch_of(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], begin: int) -> Batch:
    """Rows as one batch: what is written is read after `begin`, one token late."""
    wanted = TokenBatch.from_sequences(targets)
    ids = torch.full_like(wanted.ids, begin)
    ids[:, 1:] = wanted.ids[:, :-1]
    lost = wanted.ids
    if wanted.lengths is not None:
        beyond = torch.arange(wanted.ids.shape[1]) >= wanted.lengths[:, None]
        lost = wanted.ids.masked_fill(beyond, IGNORE_INDEX)
    return Batch(TokenBatch(ids, wanted.lengths), lost, source=TokenBatch.from_sequences(sources))


class Paired:
    """Pairs in batches of like lengths: every epoch they are shuffled, sorted within pools, and the batches shuffled.

    Documents take turns: a source, its target, the next source; each ends with the token that ends texts. Pairs of
    which a side is longer than `context` are left out; `left_out` says how many.
    """

    def __init__(self, rows: TokenSequences, context: int, batch_size: int, seed: int, begin: int) -> None:
        sizes = np.diff(np.asarray(rows.starts)).reshape(-1, 2)
        self.known: Places = np.flatnonzero(sizes.max(1, initial=0) <= context)
        self.left_out = len(sizes) - len(self.known)
        if len(self.known) < batch_size:
            less = f" (of {len(sizes):,}: the others have a side of more than {context:,} tokens)"
            raise BadInput(
                f"there are {len(self.known):,} pairs{less if self.left_out else ''}, and a batch takes "
                f"{batch_size:,}; use more, or a smaller --training.batch_size"
            )
        self.rows = rows
        self.sizes = sizes
        self.batch_size = batch_size
        self.seed = seed
        self.begin = begin
        self.per_epoch = len(self.known) // batch_size
        self.size = int(sizes[self.known].sum(1).mean() * batch_size)
        self.order = lru_cache(maxsize=1)(self.shuffled)

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        epoch, place = divmod(number, self.per_epoch)
        return self.take(self.order(epoch)[place])

    def continues(self, number: int) -> bool:
        """Never: pairs are shuffled."""
        return False

    def shuffled(self, epoch: int) -> Places:
        """The pairs of every batch of an epoch, (batches, batch_size)."""
        rng = np.random.default_rng([self.seed, epoch])
        pairs = rng.permutation(self.known)
        pools = np.arange(len(pairs)) // (POOL * self.batch_size)
        pairs = pairs[np.lexsort((self.sizes[pairs, 0], self.sizes[pairs, 1], pools))]
        batches = pairs[: self.per_epoch * self.batch_size].reshape(self.per_epoch, self.batch_size)
        return rng.permutation(batches)

    def take(self, pairs: Places) -> Batch:
        """These pairs as a batch."""
        sides = [[document(self.rows, 2 * int(pair) + side) for pair in pairs] for side in (0, 1)]
        return batch_of(sides[0], sides[1], self.begin)

    def in_order(self, limit: int | None) -> Iterator[Batch]:
        """Every pair once, those of like lengths together; under a limit of tokens, some from all over."""
        whole = int(self.sizes[self.known].sum())
        step = 1.0 if limit is None else max(1.0, whole / max(1, limit))
        chosen = self.known[np.arange(0, len(self.known), step).astype(np.int64)]
        chosen = chosen[np.lexsort((self.sizes[chosen, 0], self.sizes[chosen, 1]))]
        for start in range(0, len(chosen), self.batch_size):
            yield self.take(chosen[start : start + self.batch_size])


def document(rows: TokenSequences, number: int) -> list[int]:
    """The ids of one document."""
    ids: list[int] = np.asarray(rows.ids[rows.starts[number] : rows.starts[number + 1]]).tolist()
    return ids


DROPPED, SPAN = 0.15, 3
"""Share of the tokens that is dropped, and the mean length of a dropped span. Raffel et al. 2020, section 3.1.4."""


class Spans:
    """Windows of running text of which spans are dropped, each replaced by a sentinel; the target is what was dropped,
    span by span behind its sentinel, one sentinel more, and the end. Raffel et al. 2020, section 3.1.4.

    Windows are longer than the context by as much as makes their sources fill it.
    """

    def __init__(
        self, rows: Rows, context: int, batch_size: int, seed: int, begin: int, end: int, sentinels: Sequence[int]
    ) -> None:
        self.length = window_of(context)
        _, spans = dropping(self.length)
        if spans + 1 > len(sentinels):
            raise BadSetting(
                f"a window of {self.length:,} tokens has {spans} spans dropped, and the tokenizer knows "
                f"{len(sentinels)} sentinels; set --training.context to {18 * max(1, len(sentinels) - 1)} or less"
            )
        self.windows = Windows(rows, self.length, batch_size, seed)
        self.sentinels = list(sentinels)
        self.seed, self.begin, self.end = seed, begin, end
        self.per_epoch = max(1, self.windows.per_epoch // batch_size)
        self.size = batch_size * (self.length + 2 * spans + 3)

    def batch(self, number: int) -> Batch:
        """The number-th batch of this order, however far that is."""
        texts = self.windows.batch(number).tokens.ids.tolist()
        rng = np.random.default_rng([self.seed, 3, number])
        rows = [self.corrupt(text, rng) for text in texts]
        return batch_of([source for source, _ in rows], [target for _, target in rows], self.begin)

    def continues(self, number: int) -> bool:
        """Never: windows are shuffled."""
        return False

    def corrupt(self, text: Sequence[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """One window as source and target. It begins with what is kept, and takes turns."""
        dropped, spans = dropping(len(text))
        kept = pieces(len(text) - dropped, spans, rng)
        gone = pieces(dropped, spans, rng)
        source: list[int] = []
        target: list[int] = []
        place = 0
        for sentinel, keep, drop in zip(self.sentinels, kept, gone, strict=False):
            source += [*text[place : place + keep], sentinel]
            target += [sentinel, *text[place + keep : place + keep + drop]]
            place += keep + drop
        return [*source, self.end], [*target, self.sentinels[spans], self.end]


def dropping(length: int) -> tuple[int, int]:
    """Of so many tokens, how many are dropped, and in how many pieces.

    >>> dropping(568), dropping(4)
    ((85, 28), (1, 1))
    """
    dropped = min(max(round(length * DROPPED), 1), length - 1)
    return dropped, max(1, round(dropped / SPAN))


def window_of(context: int) -> int:
    """The longest window whose source, with its sentinels and its end, fills the context.

    >>> window_of(512)
    568
    """
    if context < 5:
        raise BadSetting(f"a context of {context} leaves no room for what is kept and sentinels; set it to 5 or more")
    length = 2
    while True:
        dropped, spans = dropping(length + 1)
        if max(length + 1 - dropped + spans + 1, dropped + spans + 2) > context:
            return length
        length += 1


def pieces(count: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`count` things cut into `parts` pieces, none empty, every way as likely."""
    cuts = np.sort(rng.choice(count - 1, parts - 1, replace=False)) + 1
    sizes: list[int] = np.diff(np.concatenate([[0], cuts, [count]])).tolist()
    return sizes
