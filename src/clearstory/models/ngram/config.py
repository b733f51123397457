"""NGramConfig: settings of n-gram models and the sizes of their tables."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.config import CausalConfig

Smoothing = Literal["kneser-ney", "witten-bell", "katz", "laplace", "none", "given"]

SMOOTHING_NAMES = {
    "kneser-ney": "modified Kneser-Ney",
    "witten-bell": "Witten-Bell",
    "katz": "Katz",
    "laplace": "Laplace",
    "none": "no smoothing",
    "given": "from an ARPA file",
}

MAX_ORDER = 32
MAX_ROWS = 2**31 - 1
"""Maximum number of n-grams of one order: row numbers have 32 bits while counting, and 64 with a token."""


@dataclass(frozen=True, kw_only=True)
class NGramConfig(CausalConfig):
    """Order, smoothing and table sizes of an n-gram model.

    Args:
        vocab: vocabulary size in tokens.
        order: length of the longest n-grams in tokens, including the predicted token.
        smoothing: kneser-ney is modified Kneser-Ney with three discounts per order (Chen and Goodman 1999, eq. 26),
            witten-bell (Witten and Bell 1991), katz (Katz 1987), laplace adds one to every count, none gives unseen
            n-grams probability zero; given is set for a model read from an ARPA file.
        prune: for each order from 1, n-grams with this count or less are dropped; the last number applies to all higher
            orders; empty: no pruning.
        bos_token_id: token that precedes every text and that n-grams do not extend past; default: the tokenizer's.
        counts: whether counts are stored with the probabilities, for inspection.
        sizes: number of n-grams of each order from 2; set when the model is fitted.
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
        """The family in one word: ngram."""
        return "ngram"

    @property
    def start_token_id(self) -> int | None:
        """The token that every text starts after; None if the tokenizer names it."""
        return self.bos_token_id

    @property
    def summary(self) -> str:
        """Order, smoothing and number of n-grams in one phrase."""
        kept = f", {self.vocab + sum(self.sizes):,} kept" if self.sizes else ", none counted yet"
        return f"n-grams of up to {self.order} token{'s' * (self.order > 1)}, {SMOOTHING_NAMES[self.smoothing]}{kept}"

    def threshold(self, order: int) -> int:
        """The largest count of this order that is pruned."""
        return self.prune[min(order, len(self.prune)) - 1] if self.prune else 0

    def __post_init__(self) -> None:
        if not 1 <= self.vocab <= 2**24:
            raise BadSetting(f"model.vocab is {self.vocab:,}; it must lie between 1 and {2**24:,}")
        if not 1 <= self.order <= MAX_ORDER:
            raise BadSetting(f"model.order is {self.order}; it must lie between 1 and {MAX_ORDER}")
        if len(self.prune) > self.order or any(low > high for low, high in pairwise((0, *self.prune))):
            raise BadSetting(f"model.prune is {self.prune}; give up to {self.order} non-decreasing counts")
        if self.prune and self.prune[0]:
            raise BadSetting(
                f"model.prune begins with {self.prune[0]}, but single tokens cannot be dropped; begin with 0"
            )
        if self.bos_token_id is not None and not 0 <= self.bos_token_id < self.vocab:
            raise BadSetting(
                f"model.bos_token_id is {self.bos_token_id:,}; it must be one of the {self.vocab:,} tokens, or null"
            )
        if len(self.sizes) >= self.order or any(not 0 <= size <= MAX_ROWS for size in self.sizes):
            raise BadSetting(
                f"model.sizes is {self.sizes}; it is the number of n-grams of each order from 2 to {self.order}"
            )
