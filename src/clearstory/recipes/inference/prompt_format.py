"""Prompt format: how the prompt of a model is encoded, and the tokens that start and end what it generates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from clearstory.generation.stream_decoder import BytesDecoder
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.prompts import Truncation, find_start_token_id
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class PromptFormat:
    """How a model and its tokenizer take a prompt.

    Args:
        reads_source: True for an encoder-decoder: the prompt is its source, and generation starts from nothing.
        eos_token_id: ends the generated text; None to ignore it.
        source_eos_token_id: ends a source.
        start_token_id: first token of the decoder, or of an empty prompt.
        truncate: what to do with a prompt that is longer than the context.
    """

    reads_source: bool
    eos_token_id: int | None
    source_eos_token_id: int | None
    start_token_id: int | None
    truncate: Truncation | None

    @classmethod
    def of(
        cls, model: LanguageModel, tokenizer: Tokenizer, truncate: Truncation | None, ignore_eos: bool = False
    ) -> PromptFormat:
        """The prompt format of a model with its tokenizer."""
        start = find_start_token_id(cast(Any, model).config, tokenizer)
        eos = tokenizer.eos_token_id
        return cls(reads_source(model), None if ignore_eos else eos, eos, start, truncate)

    @property
    def suppress_tokens(self) -> tuple[int, ...]:
        """Ids that must not be generated: the start token of an encoder-decoder.

        It has a logit, but is never part of a target; in Marian models that logit is high and meaningless.
        """
        if self.reads_source and self.start_token_id not in (None, self.source_eos_token_id):
            return (self.start_token_id,)
        return ()

    @property
    def request_options(self) -> dict[str, Any]:
        """Keyword arguments of `generation.Engine.add`."""
        return {
            "eos_token_id": self.eos_token_id,
            "start_token_id": self.start_token_id,
            "truncate": self.truncate,
        }

    @property
    def decoding_options(self) -> dict[str, Any]:
        """Keyword arguments of `generation.generate` and `generation.beam_search`."""
        return {**self.request_options, "suppress_tokens": self.suppress_tokens}

    def encode(self, tokenizer: Tokenizer, prompt: str) -> tuple[list[int], list[int] | None]:
        """Ids of the prompt and ids of the source: (prompt, None), or ([], source) for an encoder-decoder."""
        if not self.reads_source:
            return tokenizer.encode(prompt), None
        return [], SentinelTokenizer(tokenizer).source(prompt)

    def token_decoder(self, tokenizer: Tokenizer) -> BytesDecoder:
        """Decodes generated ids to bytes; for an encoder-decoder with the sentinels of masked spans as <extra_id_N>."""
        return SentinelTokenizer(tokenizer) if self.reads_source else tokenizer
