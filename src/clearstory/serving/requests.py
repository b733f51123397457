"""Requests to a served model, and the events by which generated text is returned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearstory.generation.constraints import TokenConstraints, TokenMask
from clearstory.generation.request import PromptReading as PromptReading
from clearstory.generation.request import Token as Token
from clearstory.generation.settings import Sampling
from clearstory.models.prompts import Truncation

MAX_TOP_LOGPROBS = 20
"""Maximum number of alternatives per token in a request."""

StopReason = Literal["stop", "length"]
"""Why a text ended: an end token, a stop string or a finished grammar; or the maximum number of tokens."""


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """One text to generate.

    Args:
        prompt: prompt ids; for an encoder-decoder the start of the target, usually empty.
        sampling: sampling settings: maximum number of tokens, seed, penalties, logit biases and stop strings.
        source: source ids of an encoder-decoder.
        eos_token_ids: tokens that end the text; empty to continue past them.
        start_token_id: replaces an empty prompt.
        truncate: "left" truncates a prompt longer than the context at its start; None refuses it.
        constraints: which tokens the model's generation config allows; None for all.
        token_mask: which tokens a grammar allows, step by step; it must not be shared with other requests.
        top_logprobs: number of alternatives returned with each generated token, most likely first; at most 20.
        prompt_logprobs: number of alternatives returned with each prompt token after the first; 0 for the prompt
            tokens' own log-probabilities only, None for nothing.
        continues_prompt: whether the text continues the prompt's text; False for an answer, whose first word is decoded
            as that of a new text.
        timeout: maximum time in seconds from submission to the last token; None: the limit of the thread.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    source: tuple[int, ...] | None = None
    eos_token_ids: tuple[int, ...] = ()
    start_token_id: int | None = None
    truncate: Truncation | None = None
    constraints: TokenConstraints | None = None
    token_mask: TokenMask | None = field(default=None, compare=False)
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    continues_prompt: bool = True
    timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class TextEvent:
    """One generated token of a request, and the text that has become final with it.

    Args:
        token: its id, its log-probability and its alternatives under the model's own distribution.
        bytes: the bytes that the token adds to the text; concatenated they are the text, stop string included.
        text: new text that is final: without incomplete characters, and without a stop string or the start of one.
        finish: why the text ended, in the last event; None before.
        prompt: what is known of the prompt, in the first event; None afterwards.
    """

    token: Token
    bytes: bytes
    text: str
    finish: StopReason | None = None
    prompt: PromptReading | None = None


@dataclass(frozen=True, kw_only=True)
class VectorRequest:
    """The vectors of several texts.

    Args:
        rows: ids of each text, as returned by `ServedModel.vector_inputs`.
        skipped: number of first ids of each row that are not pooled: that of the same inputs.
        normalize: whether each vector has length 1.
    """

    rows: tuple[tuple[int, ...], ...]
    skipped: int = 0
    normalize: bool = False
