"""Reading: how a finished model takes what it is given, and how what it writes ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.generation.stream_decoder import Decodes
from clearstory.models.prompts import Truncate, reads_source, writes_after
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class PromptFormat:
    """How a model takes prompts and ends texts.

    Args:
        source: whether a prompt is a source, read before anything is written.
        eos: the token that ends what is written.
        end: the token that ends a source.
        begin: the token that is read where nothing is written yet.
        truncate: what to do with a prompt that is too long.
    """

    source: bool
    eos: int | None
    end: int | None
    begin: int | None
    truncate: Truncate | None

    @classmethod
    def of(cls, network: Any, tokenizer: Tokenizer, truncate: Truncate | None, ignore_eos: bool = False) -> PromptFormat:
        """What a model and its tokenizer ask for."""
        begin = writes_after(getattr(network, "config", None), tokenizer)
        eos = tokenizer.eos_token_id
        return cls(reads_source(network), None if ignore_eos else eos, eos, begin, truncate)

    @property
    def suppress_tokens(self) -> tuple[int, ...]:
        """What is not to be written. A token that only ever begins texts has a logit too, and in Marian's models a
        high one that means nothing.
        """
        return (self.begin,) if self.source and self.begin not in (None, self.end) else ()

    def encode(self, tokenizer: Tokenizer, prompt: str) -> tuple[list[int], list[int] | None]:
        """A prompt as what has been written, and as a source."""
        if not self.source:
            return tokenizer.encode(prompt), None
        return [], SentinelTokenizer(tokenizer).source(prompt)

    def token_decoder(self, tokenizer: Tokenizer) -> Decodes:
        """What spells the ids that the model writes: with the sentinels of a text's gaps, where it fills them."""
        return SentinelTokenizer(tokenizer) if self.source else tokenizer
