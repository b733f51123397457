"""Prompt format: how the prompt of a model is encoded, and what starts, ends and constrains what it generates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from clearstory.generation.beam_search import EarlyStopping
from clearstory.generation.constraints import TokenConstraints
from clearstory.generation.stream_decoder import BytesDecoder
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.prompts import (
    EncodedPrompt,
    PromptOptions,
    Truncation,
    encode_prompt,
    find_start_token_id,
    is_chat,
)
from clearstory.text.chat_prompt import ends_turns
from clearstory.text.sentinels import SentinelTokenizer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class PromptFormat:
    """How a model and its tokenizer take a prompt, and what ends the text after it.

    Args:
        model: the model.
        eos_token_ids: tokens that end the generated text; empty to ignore them.
        start_token_id: first token of the decoder, or of an empty prompt.
        truncate: what to do with a prompt that is longer than the context.
        options: whether a chat template and special tokens are added to the prompt.
        suppress_tokens: ids that are never generated.
        constraints: which tokens may be generated next; None for all.
        early_stopping: when a beam search ends.
    """

    model: LanguageModel
    eos_token_ids: tuple[int, ...]
    start_token_id: int | None
    truncate: Truncation | None
    options: PromptOptions = PromptOptions()
    suppress_tokens: tuple[int, ...] = ()
    constraints: TokenConstraints | None = None
    early_stopping: EarlyStopping = False

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        tokenizer: Tokenizer,
        truncate: Truncation | None,
        ignore_eos: bool = False,
        *,
        generation_config: GenerationConfig | None = None,
        options: PromptOptions = PromptOptions(),
    ) -> PromptFormat:
        """The prompt format of a model with its tokenizer and its generation config; without, texts end with eos.

        A chat ends with the tokenizer's eos, too, if its template writes that.
        """
        end = tokenizer.eos_token_id
        config = generation_config or GenerationConfig(eos_token_ids=() if end is None else (end,))
        start = find_start_token_id(cast(Any, model).config, tokenizer)
        constraints = TokenConstraints.of(config)
        ends = config.eos_token_ids
        if (
            end is not None
            and is_chat(model, tokenizer, options)
            and ends_turns(tokenizer, tokenizer.display_token(end))
        ):
            ends = tuple(dict.fromkeys((*ends, end)))
        suppressed = [id for id in constraints.suppress_tokens if 0 <= id < model.vocab]
        constraints = replace(constraints, suppress_tokens=())
        return cls(
            model,
            () if ignore_eos else ends,
            start,
            truncate,
            options,
            tuple(suppressed),
            None if constraints == TokenConstraints() else constraints,
            config.early_stopping or False,
        )

    @property
    def reads_source(self) -> bool:
        """True for an encoder-decoder: the prompt is its source, and generation starts from nothing."""
        return reads_source(self.model)

    @property
    def request_options(self) -> dict[str, Any]:
        """Keyword arguments of `generation.Engine.add`."""
        return {
            "eos_token_id": self.eos_token_ids,
            "start_token_id": self.start_token_id,
            "truncate": self.truncate,
            "constraints": self.constraints,
        }

    @property
    def decoding_options(self) -> dict[str, Any]:
        """Keyword arguments of `generation.generate`."""
        return {**self.request_options, "suppress_tokens": self.suppress_tokens}

    @property
    def search_options(self) -> dict[str, Any]:
        """Keyword arguments of `generation.beam_search`."""
        return {**self.decoding_options, "early_stopping": self.early_stopping}

    def encode(self, tokenizer: Tokenizer, prompt: str) -> tuple[list[int], list[int] | None]:
        """Ids of the prompt and ids of the source: (prompt, None), or ([], source) for an encoder-decoder."""
        ids = list(self.encode_prompt(tokenizer, prompt).ids)
        return ([], ids) if self.reads_source else (ids, None)

    def encode_prompt(self, tokenizer: Tokenizer, prompt: str) -> EncodedPrompt:
        """The prompt as the model reads it."""
        return encode_prompt(self.model, tokenizer, prompt, self.options)

    def token_decoder(self, tokenizer: Tokenizer) -> BytesDecoder:
        """Decodes generated ids to bytes; for an encoder-decoder with the sentinels of masked spans as <extra_id_N>."""
        return SentinelTokenizer(tokenizer) if self.reads_source else tokenizer
