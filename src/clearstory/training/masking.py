"""Masking: which tokens of a row are hidden, and what stands in their place. Devlin et al. 2019, section 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from clearstory.models.base import IGNORE_INDEX
from clearstory.text.special_tokens import cls_and_sep_ids, require_mask_token, continuation_mask
from clearstory.text.tokenizers import Tokenizer

SHARE = 0.15
"""Of the tokens, how many are to be told."""

MASKED, OTHER = 0.8, 0.1
"""Of these, how many the mask hides, and how many another token; the rest stay: any vector may be asked for."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Masking:
    """A tokenizer's part in masking.

    Args:
        mask: the token that hides others.
        first: the one that begins all that is read.
        last: the one behind each text.
        ordinary: ids that may be hidden, or hide another: all but the special ones.
        special: (V,) whether an id is special.
        inside: (V,) whether an id goes on with a word; None to hide tokens rather than whole words.
    """

    mask: int
    first: int
    last: int
    ordinary: Rows
    special: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, whole_words: bool = False) -> Self:
        """That of a tokenizer. Raises CannotDo for one without [CLS], [SEP] and [MASK]."""
        special = tokenizer.special_tokens_mask
        inside = continuation_mask(tokenizer) if whole_words else None
        return cls(require_mask_token(tokenizer), *cls_and_sep_ids(tokenizer), np.flatnonzero(~special), special, inside)

    def draw(self, rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Rows (B, T) with some tokens hidden, and the tokens to be told (B, T): IGNORE_INDEX where nothing is asked.

        Of each row so many as come nearest to SHARE, and one at least where there is one; of whole words, as many as
        fit into that number, and one word at least.
        """
        chosen = np.zeros(rows.shape, dtype=np.bool_)
        for row, mine in zip(rows, chosen, strict=True):
            places = np.flatnonzero(~self.special[row])
            if not len(places):
                continue
            begins = np.ones(len(places), np.bool_) if self.inside is None else ~self.inside[row[places]]
            begins[0] = True
            word = np.cumsum(begins) - 1
            sizes = np.bincount(word)
            order = rng.permutation(len(sizes))
            fit = np.cumsum(sizes[order]) <= max(1, round(SHARE * len(places)))
            fit[0] = True
            mine[places[np.isin(word, order[fit])]] = True
        targets = np.where(chosen, rows, IGNORE_INDEX)
        fate = rng.random(rows.shape)
        other = self.ordinary[rng.integers(len(self.ordinary), size=rows.shape)]
        shown = np.where(fate < MASKED, self.mask, np.where(fate < MASKED + OTHER, other, rows))
        return np.where(chosen, shown, rows), targets
