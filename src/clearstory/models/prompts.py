"""Prompts: what a model is asked to go on from, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, cast

import torch

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.models.base import LanguageModel, TokenBatch, State

Truncation = Literal["left"]
"""What to do with a prompt longer than the context: keep its end."""


class HasStartTokens(Protocol):
    """The part of a tokenizer that says where texts begin."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a document."""


def bos_or_eos_token_id(tokenizer: HasStartTokens) -> int | None:
    """The token that texts begin after: the one meant for it, else the one that ends the text before."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def reads_source(model: object) -> bool:
    """Whether a model is handed a source before it writes: what is to be translated, summarized, filled in."""
    return bool(getattr(model, "reads_source", False))


def find_start_token_id(config: object, tokenizer: HasStartTokens) -> int | None:
    """The token that a model's writing begins after, where its prompt has none: its own, or the tokenizer's."""
    begin = getattr(config, "start_token_id", None)
    return bos_or_eos_token_id(tokenizer) if begin is None else int(begin)


def initial_state(model: LanguageModel, rows: int, sources: Sequence[Sequence[int]], device: torch.device) -> State:
    """The memory of rows that have written nothing; where a model reads sources, one row has read each of these."""
    if not reads_source(model):
        return model.init_state(rows)
    state: State = cast(Any, model).init_state(rows, source=TokenBatch.from_sequences(sources, device))
    return state


def prepare_source(model: LanguageModel, source: Sequence[int] | None, truncate: Truncation | None = None) -> list[int]:
    """The ids of a source, as `fit_prompt` has those of a prompt; none for a model that reads none.

    Raises CannotDo where a source is missing, or given to a model that only writes on.
    """
    if reads_source(model) and source is None:
        raise CannotDo("this model reads a source before it writes; hand in what is to be translated or summarized")
    if source is not None and not reads_source(model):
        raise CannotDo("this model writes on from a prompt and reads no source; hand the text in as the prompt")
    return [] if source is None else prepare_prompt(model, source, None, truncate)


def prepare_prompt(
    model: LanguageModel, prompt: Sequence[int], begin: int | None = None, truncate: Truncation | None = None
) -> list[int]:
    """The ids to read first.

    An empty prompt becomes `begin`, the token texts begin after. Raises BadInput when there is neither, ContextOverflow
    when the prompt is longer than the context (unless its beginning may be cut off), VocabularyMismatch when an id is
    not the model's.
    """
    if truncate not in (None, "left"):
        raise BadSetting(f"truncate is {truncate!r}; 'left' keeps a long prompt's end, None refuses it")
    ids = [int(id) for id in prompt]
    if not ids:
        if begin is None:
            raise BadInput(
                "the prompt is empty and this model's tokenizer has no token that texts begin after; "
                "give it at least one word"
            )
        ids = [begin]
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
    """What a row whose context is full goes on from: the last half of it, read anew as if nothing had come before.

    Exact by definition, and the same for learned and rotary places; a sliding cache would be neither, since its keys
    know tokens that are gone.
    """
    return ids[-max(1, context // 2) :]


@contextmanager
def inference_mode(model: object) -> Iterator[None]:
    """Without gradients or dropout; every module's mode is as before afterwards."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    awake = [module for module in modules if module.training]
    for module in awake:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in awake:
            module.training = True
