"""Requests for texts: fields of an HTTP request and ids of its prompt, converted to requests of a model's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clearstory.errors import ClearstoryError
from clearstory.generation.settings import Sampling, sampling_of
from clearstory.server.errors import RequestError, to_request_error
from clearstory.serving.requests import TextRequest

if TYPE_CHECKING:
    from clearstory.models.base import LanguageModel
    from clearstory.server.context import ServerLimits
    from clearstory.server.text_fields import TextFields
    from clearstory.serving.served_model import ServedModel

MAX_TEXTS = 1024
"""Maximum number of texts of one HTTP request: prompts times `n`."""


@dataclass(frozen=True, kw_only=True)
class PromptIds:
    """An encoded prompt.

    Args:
        ids: its token ids; those of the source for an encoder-decoder.
        text: its text; None for a prompt that was sent as ids.
        continues_prompt: whether the generated text continues the prompt's.
    """

    ids: tuple[int, ...]
    text: str | None = None
    continues_prompt: bool = True


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Context manager in which errors of this library name this field."""
    try:
        yield
    except ClearstoryError as error:
        found = to_request_error(error)
        found.param = found.param or param
        raise found from None


def text_requests(
    served: ServedModel,
    fields: TextFields,
    prompt: PromptIds,
    *,
    param: str,
    max_tokens: int,
    top_logprobs: int,
    prompt_logprobs: int | None = None,
    first: int = 0,
) -> list[TextRequest]:
    """The `n` requests for one prompt; text i has the seed of the request + i, counted from `first`.

    Raises RequestError that names `param` for a prompt that is not valid for the model.
    """
    check_prompt(served, fields, prompt, param)
    reads_source = served.prompt_format.reads_source
    sampling = sampling_fields(served, fields, max_tokens)
    if fields.truncate is None and served.model.context is not None:
        before = 1 if reads_source else max(len(prompt.ids), 1)
        # The last token of a text is never read.
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, served.model.context - before + 1))
    request = TextRequest(
        prompt=() if reads_source else prompt.ids,
        source=prompt.ids if reads_source else None,
        sampling=sampling,
        eos_token_ids=(
            *(() if fields.ignore_eos else served.prompt_format.eos_token_ids),
            *stop_token_ids(served, fields),
        ),
        start_token_id=served.prompt_format.start_token_id,
        truncate=fields.truncate,
        constraints=served.prompt_format.constraints,
        top_logprobs=top_logprobs,
        prompt_logprobs=prompt_logprobs,
        continues_prompt=prompt.continues_prompt and not reads_source,
    )
    if sampling.seed is None:
        return [request] * fields.n
    seeds = range(sampling.seed + first, sampling.seed + first + fields.n)
    return [replace(request, sampling=replace(sampling, seed=seed)) for seed in seeds]


def stop_token_ids(served: ServedModel, fields: TextFields) -> list[int]:
    """Special tokens that are named as stop strings: they are not part of the text, where they could not be found."""
    tokenizer = served.tokenizer
    return [tokenizer.ids[name] for name in fields.stop_strings if name in tokenizer.special_names]


def check_prompt(served: ServedModel, fields: TextFields, prompt: PromptIds, param: str) -> None:
    """Raises RequestError for a prompt longer than the context, unless it may be truncated, and for an unknown id."""
    context = served.model.context
    if context is not None and len(prompt.ids) > context and fields.truncate is None:
        raise too_long(len(prompt.ids), context, param)
    check_ids(served.model, prompt.ids, param)


def check_ids(model: LanguageModel, ids: Sequence[int], param: str) -> None:
    """Raises RequestError for an id outside the vocabulary."""
    if ids and (min(ids) < 0 or max(ids) >= model.vocab):
        wrong = next(id for id in ids if not 0 <= id < model.vocab)
        raise RequestError(
            f"token id {wrong:,} is outside the model's vocabulary of {model.vocab:,}; send ids of its tokenizer, as "
            "returned by /tokenize",
            param=param,
            code="invalid_value",
        )


def too_long(tokens: int, context: int, param: str) -> RequestError:
    """The error for a prompt that is longer than the context."""
    return RequestError(
        f"the prompt has {tokens:,} tokens and the model's context holds {context:,}; shorten it, or truncate it at "
        'the start with "truncate": "left"',
        param=param,
        code="context_length_exceeded",
    )


def sampling_fields(served: ServedModel, fields: TextFields, max_tokens: int) -> Sampling:
    """The sampling settings of the request, by default those of the model's generation config."""
    given: dict[str, Any] = {
        "max_tokens": max(max_tokens, 1),
        "temperature": fields.temperature,
        "top_p": None if fields.top_p is None else max(fields.top_p, 1e-9),  # 0 keeps the likeliest token
        "top_k": None if fields.top_k is None else max(fields.top_k, 0),
        "min_p": fields.min_p,
        "repetition_penalty": fields.repetition_penalty,
        "presence_penalty": fields.presence_penalty or None,
        "frequency_penalty": fields.frequency_penalty or None,
        "logit_bias": biases(served.model.vocab, fields.logit_bias or {}) or None,
        "stop": fields.stop_strings or None,
        "seed": fields.seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return replace(sampling_of(served.generation_config, given), beam=1)


def biases(vocab: int, logit_bias: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """The logit biases as ids and numbers. Raises RequestError for a key that is not an id of the vocabulary."""
    for key in logit_bias:
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) < vocab):
            raise RequestError(
                f"logit_bias has the key '{key[:40]}'; its keys are token ids from 0 to {vocab - 1:,}",
                param="logit_bias",
                code="invalid_value",
            )
    return tuple(sorted((int(key), value) for key, value in logit_bias.items()))


def largest_length(requested: int | None, default: int, limits: ServerLimits, param: str = "max_tokens") -> int:
    """The maximum number of tokens of a text. Raises RequestError for more than the server allows."""
    if requested is None:
        return default if limits.max_tokens is None else min(default, limits.max_tokens)
    if limits.max_tokens is not None and requested > limits.max_tokens:
        raise RequestError(
            f"{param} is {requested:,}; this server generates at most {limits.max_tokens:,} tokens",
            param=param,
            code="integer_above_max_value",
        )
    return requested
