"""The token that a text is read after."""

from __future__ import annotations

from typing import Protocol


class HasStartTokens(Protocol):
    """The part of a tokenizer that names the tokens at which texts start and end."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that starts a text."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a document."""


def bos_or_eos_token_id(tokenizer: HasStartTokens) -> int | None:
    """The token that precedes a text: bos where the tokenizer has one, else eos, which ends the text before."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
