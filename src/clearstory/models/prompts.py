"""Prompts: the ids a model generates from, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.models.base import LanguageModel, reads_source
from clearstory.models.config import Config

Truncation = Literal["left"]
"""How a prompt longer than the context is shortened: "left" drops its beginning."""


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


def find_start_token_id(config: Config, tokenizer: HasStartTokens) -> int | None:
    """The token that generation starts after when the prompt is empty: the config's own, else the tokenizer's."""
    start = config.start_token_id
    return bos_or_eos_token_id(tokenizer) if start is None else start


def prepare_source(model: LanguageModel, source: Sequence[int] | None, truncate: Truncation | None = None) -> list[int]:
    """The ids of a source, checked as `prepare_prompt` checks a prompt; empty for a model that reads no source.

    Raises CannotDo where a source is missing, or given to a model that reads none.
    """
    if reads_source(model) and source is None:
        raise CannotDo("this model reads a source before it writes; hand in what is to be translated or summarized")
    if source is not None and not reads_source(model):
        raise CannotDo("this model writes on from a prompt and reads no source; hand the text in as the prompt")
    return [] if source is None else prepare_prompt(model, source, None, truncate)


def prepare_prompt(
    model: LanguageModel, prompt: Sequence[int], start_token_id: int | None = None, truncate: Truncation | None = None
) -> list[int]:
    """The ids of a prompt, checked; an empty prompt becomes `start_token_id`.

    Raises BadInput for an empty prompt without a start token, ContextOverflow for a prompt longer than the context
    (unless `truncate` is "left"), VocabularyMismatch for an id outside the vocabulary.
    """
    if truncate not in (None, "left"):
        raise BadSetting(f"truncate is {truncate!r}; 'left' keeps a long prompt's end, None refuses it")
    ids = [int(id) for id in prompt]
    if not ids:
        if start_token_id is None:
            raise BadInput(
                "the prompt is empty and this model's tokenizer has no token that texts begin after; "
                "give it at least one word"
            )
        ids = [start_token_id]
    wrong = next((id for id in ids if not 0 <= id < model.vocab), None)
    if wrong is not None:
        raise VocabularyMismatch(
            f"token id {wrong:,} lies outside the model's vocabulary of {model.vocab:,}; "
            "open the tokenizer saved beside the model"
        )
    if model.context is not None and len(ids) > model.context:
        if truncate is None:
            raise ContextOverflow(
                f"the prompt has {len(ids):,} tokens and the model's context holds {model.context:,}; "
                "shorten it, or pass --truncate left to keep its end"
            )
        ids = ids[-model.context :]
    return ids


def keep_recent_half(ids: Sequence[int], context: int) -> Sequence[int]:
    """The last half of a context's worth of ids, from which a sequence continues when its context is full.

    The half is processed anew, as if nothing had come before. That is exact by definition, for learned and for rotary
    positions; a sliding KV cache would be neither, since its keys were computed with tokens that are gone.
    """
    return ids[-max(1, context // 2) :]
