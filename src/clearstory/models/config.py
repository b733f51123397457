"""Config: interface of the settings of all model families."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class Config(Protocol):
    """A family's settings: a frozen dataclass that imports no torch. `FAMILIES` finds the family by its type."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab(self) -> int:
        """Tokens in the vocabulary."""

    @property
    def family(self) -> str:
        """The family in one word: transformer, ngram, hmm, rnn, gru, lstm."""

    @property
    def architecture(self) -> str:
        """decoder (causal), encoder (bidirectional) or encoder-decoder; decoder for all but some Transformers."""

    @property
    def context(self) -> int | None:
        """Longest sequence in tokens; None for unlimited."""

    @property
    def start_token_id(self) -> int | None:
        """The token that generation starts after, where the config names one."""

    @property
    def summary(self) -> str:
        """Type and size in one phrase, such as "4 layers of width 128, context 64"."""


class CausalConfig:
    """Properties of a config whose models predict the next token after a text of any length."""

    @property
    def architecture(self) -> str:
        """Decoder: each token is predicted from those before it."""
        return "decoder"

    @property
    def context(self) -> None:
        """None: unlimited."""
        return None

    @property
    def start_token_id(self) -> int | None:
        """None: the tokenizer names the token that generation starts after."""
        return None
