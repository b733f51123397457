"""Constraints: tokens that must not, or must, be generated next, as the generation config of a model says.

Their order and their effect are those of the logits processors of transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearstory.models.generation_config import GenerationConfig

EndTokens = int | Collection[int] | None
"""The token that ends a text, or several of which each does; None for none."""


def end_token_ids(ends: EndTokens) -> tuple[int, ...]:
    """End tokens as a tuple of ids."""
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


@dataclass(frozen=True, kw_only=True)
class TokenConstraints:
    """What may be generated next.

    Args:
        no_repeat_ngram_size: no n-gram of this length occurs twice, prompt included; 0 for no such limit.
        bad_words_ids: sequences of tokens that are never generated.
        min_new_tokens: minimum number of tokens to generate before an end token.
        min_length: the same with the prompt's tokens.
        max_length: maximum number of tokens, prompt included; None: no limit.
        forced_bos_token_id: the token generated after a prompt of one token, such as a decoder's start token.
        forced_eos_token_id: the last token of a text of maximum length.
        begin_suppress_tokens: tokens that are not generated first.
        suppress_tokens: tokens that are never generated.
    """

    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    min_length: int = 0
    max_length: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    begin_suppress_tokens: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: GenerationConfig) -> TokenConstraints:
        """The constraints of a generation config; a bad word of one token is among `suppress_tokens`."""
        words = [
            word for word in config.bad_words_ids or () if word and word not in {(id,) for id in config.eos_token_ids}
        ]
        return cls(
            no_repeat_ngram_size=config.no_repeat_ngram_size or 0,
            bad_words_ids=tuple(word for word in words if len(word) > 1),
            min_new_tokens=config.min_new_tokens or 0,
            min_length=config.min_length or 0,
            max_length=None if config.max_new_tokens is not None else config.max_length,
            forced_bos_token_id=config.forced_bos_token_id,
            forced_eos_token_id=config.forced_eos_token_id,
            begin_suppress_tokens=config.begin_suppress_tokens or (),
            suppress_tokens=(*(config.suppress_tokens or ()), *(word[0] for word in words if len(word) == 1)),
        )

    def apply(
        self, logits: Float[Tensor, "V"], ids: Sequence[int], n_generated: int, last: bool, ends: Sequence[int]
    ) -> Float[Tensor, "V"]:
        """Logits of the next token with those of forbidden tokens at minus infinity.

        Args:
            logits: logits or log-probabilities of the next token.
            ids: the prompt and the tokens generated so far.
            n_generated: number of tokens generated so far.
            last: whether the next token is the last of the maximum length.
            ends: the tokens that end a text.
        """
        forbidden = set(banned_by_ngrams(ids, self.no_repeat_ngram_size))
        forbidden.update(banned_by_words(ids, self.bad_words_ids))
        if n_generated < self.min_new_tokens or len(ids) < self.min_length:
            forbidden.update(ends)
        logits = without(logits, forbidden)
        if self.forced_bos_token_id is not None and len(ids) == 1:
            logits = only(logits, self.forced_bos_token_id)
        if self.forced_eos_token_id is not None and last:
            logits = only(logits, self.forced_eos_token_id)
        # A forced first token is not the one that is meant.
        begins = n_generated == (1 if self.forced_bos_token_id is not None and len(ids) - n_generated == 1 else 0)
        return without(logits, {*self.suppress_tokens, *(self.begin_suppress_tokens if begins else ())})


class TokenMask(Protocol):
    """The tokens that a grammar allows next, for one text: after each token it is advanced."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete, and no token may follow."""

    def allowed(self) -> Bool[Tensor, "K"]:
        """Tokens that may be generated next, (K,); ids from K on are not allowed."""

    def advance(self, id: int) -> None:
        """Advance by the generated token."""


def banned_by_ngrams(ids: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete an n-gram of this size that is already there.

    >>> banned_by_ngrams([1, 2, 3, 1, 2], 3)
    [3]
    """
    if size < 1 or len(ids) + 1 < size:
        return []
    before = tuple(ids[len(ids) - size + 1 :])
    starts = range(len(ids) - size + 1)
    return [ids[start + size - 1] for start in starts if tuple(ids[start : start + size - 1]) == before]


def banned_by_words(ids: Sequence[int], words: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that would complete one of these sequences."""
    found = []
    for *before, last in words:
        if len(before) <= len(ids) and list(ids[len(ids) - len(before) :]) == before:
            found.append(last)
    return found


def without(logits: Float[Tensor, "V"], forbidden: Collection[int]) -> Float[Tensor, "V"]:
    """Logits in which those of these ids are minus infinity; ids outside the vocabulary are ignored."""
    known = [id for id in forbidden if 0 <= id < len(logits)]
    return logits.index_fill(0, torch.tensor(known, device=logits.device), -torch.inf) if known else logits


def only(logits: Float[Tensor, "V"], id: int) -> Float[Tensor, "V"]:
    """Logits in which all but that of this id are minus infinity."""
    if not 0 <= id < len(logits):
        return logits
    forced = torch.full_like(logits, -torch.inf)
    forced[id] = 0
    return forced
