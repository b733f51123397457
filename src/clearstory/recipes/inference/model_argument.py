"""Model argument of a recipe: a path or an opened model. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from clearstory.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from clearstory.models.base import LanguageModel


class ModelWithTokenizer(Protocol):
    """A loaded model with its tokenizer, such as `clearstory.open` returns."""

    @property
    def model(self) -> LanguageModel:
        """A LanguageModel or an Encoder."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None for a model folder without one."""
