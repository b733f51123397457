"""Requests for text, as an engine keeps them while they wait, are read, and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from clearstory.generation.constraints import TokenConstraints, TokenMask
from clearstory.generation.prefix_cache import PrefixDigest
from clearstory.generation.settings import Sampling
from clearstory.models.base import State


@dataclass(frozen=True)
class Token:
    """A token of a text, and what the model's own distribution says of it, before biases, penalties and cuts.

    Args:
        id: its id.
        logprob: its log-probability in nats.
        top: the likeliest tokens in its place, likeliest first: ids and log-probabilities.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PromptReading:
    """What is known of a request's prompt when its first token is chosen.

    Args:
        n_tokens: number of prompt tokens; for an encoder-decoder of source and prompt.
        n_cached: how many of them were not read for this request, since another one had begun with them.
        tokens: the prompt tokens after the first with their log-probabilities, where the request asked for them.
    """

    n_tokens: int
    n_cached: int = 0
    tokens: tuple[Token, ...] | None = None


@dataclass(frozen=True)
class StepOutput:
    """The next token of a request.

    Args:
        request: the number of the request.
        token: the token.
        finished: why it is the last one: "eos" (an end token, or a finished grammar) or "length"; else None.
        prompt: what is known of the prompt, with the first token.
    """

    request: int
    token: Token
    finished: Literal["eos", "length"] | None
    prompt: PromptReading | None = None


@dataclass
class GenerationRequest:
    """A request in progress.

    Args:
        request: its number.
        sampling: its settings.
        eos_token_ids: the tokens that end it.
        generator: its random generator.
        ids: the prompt and the tokens generated so far.
        unread: tokens the model has not read yet.
        source: source ids of an encoder-decoder.
        constraints: which tokens may be generated; None for all.
        token_mask: which tokens a grammar allows; None for all.
        top_logprobs: number of alternatives of each generated token.
        prompt_logprobs: number of alternatives of each prompt token after the first; None where those have no scores.
        keep_state: whether the state is kept when the request is finished.
        state: the model's state before the unread tokens; None where it has read none, and in the batch.
        prefix: digest of the beginning of the prompt that has been read; None where others do not share it.
        n_generated: number of tokens generated so far.
        n_cached: prompt tokens that were not read for this request.
        prompt_tokens: the prompt tokens that have scores so far.
    """

    request: int
    sampling: Sampling
    eos_token_ids: tuple[int, ...]
    generator: Generator
    ids: list[int]
    unread: Sequence[int]
    source: Sequence[int] = ()
    constraints: TokenConstraints | None = None
    token_mask: TokenMask | None = None
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    keep_state: bool = False
    state: State | None = None
    prefix: PrefixDigest | None = None
    n_generated: int = 0
    n_cached: int = 0
    prompt_tokens: list[Token] = field(default_factory=list)

    @property
    def generated(self) -> Sequence[int]:
        """The tokens generated so far."""
        return self.ids[len(self.ids) - self.n_generated :]

    @property
    def is_constrained(self) -> bool:
        """Whether some tokens must not be generated."""
        return self.constraints is not None or self.token_mask is not None

    def append_token(self, token: Token) -> StepOutput:
        """Append a token, and return it as the request's output."""
        prompt = None
        if not self.n_generated:
            scored = None if self.prompt_logprobs is None else tuple(self.prompt_tokens)
            prompt = PromptReading(n_tokens=len(self.source) + len(self.ids), n_cached=self.n_cached, tokens=scored)
        self.ids.append(token.id)
        self.unread = (token.id,)
        self.n_generated += 1
        ended = token.id in self.eos_token_ids
        if self.token_mask is not None and not ended:
            self.token_mask.advance(token.id)
            ended = self.token_mask.finished
        return StepOutput(self.request, token, "eos" if ended else "length" if self.is_full(0) else None, prompt)

    def is_full(self, more: int) -> bool:
        """Whether the text has its largest length with this many more tokens."""
        longest = None if self.constraints is None else self.constraints.max_length
        too_long = longest is not None and len(self.ids) + more >= longest
        return too_long or self.n_generated + more >= self.sampling.max_tokens

    def constrain(self, logits: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
        """Logits of the next token without tokens that must not be generated."""
        if self.constraints is not None:
            logits = self.constraints.apply(logits, self.ids, self.n_generated, self.is_full(1), self.eos_token_ids)
        if self.token_mask is not None:
            allowed = self.token_mask.allowed().to(logits.device)
            forbidden = torch.ones_like(logits, dtype=torch.bool)
            forbidden[: len(allowed)] = ~allowed[: len(logits)]
            logits = logits.masked_fill(forbidden, -torch.inf)
        return logits
