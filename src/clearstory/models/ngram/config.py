"""Config: the fields in which n-gram models differ, and the sizes of their tables."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from clearstory.errors import BadSetting

Smoothing = Literal["kneser-ney", "witten-bell", "katz", "laplace", "none", "given"]

NAMES = {
    "kneser-ney": "modified Kneser-Ney",
    "witten-bell": "Witten-Bell",
    "katz": "Katz",
    "laplace": "Laplace",
    "none": "no smoothing",
    "given": "as given",
}

MOST_ORDER = 32
MOST_ROWS = 2**31 - 1
"""n-grams of one order: their numbers are kept in 32 bits while counting, and with a word in 64."""


@dataclass(frozen=True, kw_only=True)
class NGramConfig:
    """One n-gram model's order, smoothing and tables.

    Args:
        vocab: tokens the model knows.
        order: tokens in the longest n-gram, the foreseen one included.
        smoothing: how seen tokens leave something to unseen ones: kneser-ney has three discounts an order (Chen and
            Goodman 1999, eq. 26), witten-bell (Witten and Bell 1991), katz (Katz 1987), laplace adds one to every
            count, none leaves nothing; given is what a model read from a file of ARPA says.
        prune: for each order from 1, n-grams that were counted so often or less are dropped; the last stands for all
            longer ones. None by default.
        bos_token_id: the token that texts begin after, beyond which no n-gram reaches back; the tokenizer's when not
            given.
        counts: whether counts are kept beside the probabilities, to be looked at.
        sizes: n-grams of each order from 2; none before the model has learnt.
    """

    vocab: int
    order: int = 5
    smoothing: Smoothing = "kneser-ney"
    prune: tuple[int, ...] = ()
    bos_token_id: int | None = None
    counts: bool = True
    sizes: tuple[int, ...] = ()

    @property
    def family(self) -> str:
        """The kind in one word."""
        return "ngram"

    @property
    def start_token_id(self) -> int | None:
        """The token that every text starts after."""
        return self.bos_token_id

    @property
    def summary(self) -> str:
        """The model in words."""
        kept = f", {self.vocab + sum(self.sizes):,} kept" if self.sizes else ", none counted yet"
        return f"n-grams of up to {self.order} token{'s' * (self.order > 1)}, {NAMES[self.smoothing]}{kept}"

    def threshold(self, order: int) -> int:
        """n-grams of this order that were counted so often or less are dropped."""
        return self.prune[min(order, len(self.prune)) - 1] if self.prune else 0

    def __post_init__(self) -> None:
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")
        if not 1 <= self.order <= MOST_ORDER:
            raise BadSetting(f"model.order is {self.order}; it must lie between 1 and {MOST_ORDER}")
        if len(self.prune) > self.order or any(low > high for low, high in pairwise((0, *self.prune))):
            raise BadSetting(f"model.prune is {self.prune}; give up to {self.order} counts, none below the one before")
        if self.prune and self.prune[0]:
            raise BadSetting(f"model.prune begins with {self.prune[0]}, and no token can be dropped; begin with 0")
        if self.bos_token_id is not None and not 0 <= self.bos_token_id < self.vocab:
            raise BadSetting(
                f"model.bos_token_id is {self.bos_token_id:,}; it must be one of the {self.vocab:,} tokens, or null"
            )
        if len(self.sizes) >= self.order or any(not 0 <= size <= MOST_ROWS for size in self.sizes):
            raise BadSetting(
                f"model.sizes is {self.sizes}; it says how many n-grams there are of each order from 2 to {self.order}"
            )
