"""Generation by sampling: `Engine` for many requests at once (continuous batching), `generate` for one.

Every call of `Engine.next_tokens` gives each running request one token. New requests join the batch at any time, and
finished ones leave it; the tokens of a request do not depend on the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from clearstory.errors import BadSetting
from clearstory.generation.constraints import EndTokens, TokenConstraints, end_token_ids
from clearstory.generation.decoding_batch import decoding_batch
from clearstory.generation.sampling import sample_tokens
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, State, inference_mode
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source

PREFILL_TOKENS = 4096
"""Largest number of tokens, padding included, that new requests read at once; it bounds the memory of a forward pass.
"""


@dataclass(frozen=True)
class Token:
    """A token of a text, and what the model's own distribution says of it, before cuts and penalties.

    Args:
        id: its id.
        logprob: its log-probability in nats.
        top: the likeliest tokens in its place, likeliest first: ids and log-probabilities.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StepOutput:
    """The next token of a request. `finished` is "eos" or "length" when it is the last one, else None."""

    request: int
    token: Token
    finished: Literal["eos", "length"] | None


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
        n_generated: number of tokens generated so far.
        state: the model's state before the unread tokens; None where it has read none.
        keep_state: whether the state is kept when the request is finished.
    """

    request: int
    sampling: Sampling
    eos_token_ids: tuple[int, ...]
    generator: Generator
    ids: list[int]
    unread: Sequence[int]
    source: Sequence[int] = ()
    constraints: TokenConstraints | None = None
    n_generated: int = 0
    state: State | None = None
    keep_state: bool = False

    @property
    def prefill_length(self) -> int:
        """Length of the longer of prompt and source."""
        return max(len(self.unread), len(self.source))

    def append_token(self, token: Token) -> StepOutput:
        """Append a token, and return it as the request's output."""
        self.ids.append(token.id)
        self.unread = (token.id,)
        self.n_generated += 1
        ended = token.id in self.eos_token_ids
        return StepOutput(self.request, token, "eos" if ended else "length" if self.is_full(0) else None)

    def is_full(self, more: int) -> bool:
        """Whether the text has its largest length with this many more tokens."""
        longest = None if self.constraints is None else self.constraints.max_length
        too_long = longest is not None and len(self.ids) + more >= longest
        return too_long or self.n_generated + more >= self.sampling.max_tokens

    def constrain(self, logits: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
        """Logits of the next token without tokens that must not be generated."""
        if self.constraints is None:
            return logits
        return self.constraints.apply(logits, self.ids, self.n_generated, self.is_full(1), self.eos_token_ids)


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    eos_token_id: EndTokens = None,
    start_token_id: int | None = None,
    truncate: Truncation | None = None,
    source: Sequence[int] | None = None,
    suppress_tokens: Sequence[int] = (),
    constraints: TokenConstraints | None = None,
) -> Iterator[Token]:
    """Generate from a prompt, token by token, until an end token (the last token given) or `sampling.max_tokens`.

    Args:
        model: any LanguageModel.
        prompt: prompt ids; at most as many as the model's context.
        sampling: how tokens are chosen.
        eos_token_id: the token, or several of which each, ends the text; None to continue past them.
        start_token_id: replaces an empty prompt.
        truncate: "left" cuts off the beginning of a prompt longer than the context.
        source: source ids of an encoder-decoder, whose prompt is the beginning of the target: mostly empty.
        suppress_tokens: ids that are never generated.
        constraints: which tokens may be generated; None for all.

    When prompt and generated tokens exceed the context, the model reads the last half of it again as a new prompt: the
    text continues for as long as asked. Stop strings are handled by `StreamDecoder`, beams by `beam_search`.

    Raises ContextOverflow, BadInput, VocabularyMismatch, BadSetting or CannotDo before the first token.
    """
    engine = Engine(model, suppress_tokens=tuple(suppress_tokens))
    engine.add(
        prompt,
        sampling,
        eos_token_id=eos_token_id,
        start_token_id=start_token_id,
        truncate=truncate,
        source=source,
        constraints=constraints,
    )

    def tokens() -> Iterator[Token]:
        while engine.has_unfinished:
            for output in engine.next_tokens():
                yield output.token

    return tokens()


@dataclass
class Engine:
    """Continuous batching over one model: `add` requests at any time, call `next_tokens` until none is unfinished.

    Args:
        model: any LanguageModel.
        max_running: largest number of requests in the batch; others wait.
        suppress_tokens: ids that are never generated.
        states: states of finished requests that were added with `keep_state`.

    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> engine = Engine(build(NANOGPT_CHAR, seed=1))
    >>> first = engine.add([1, 2, 3], Sampling(max_tokens=2, seed=5))
    >>> second = engine.add([4], Sampling(max_tokens=1, temperature=0))
    >>> [[output.request for output in engine.next_tokens()] for _ in range(2)]
    [[0, 1], [0]]
    """

    model: LanguageModel
    max_running: int = 64
    suppress_tokens: tuple[int, ...] = ()
    waiting: deque[GenerationRequest] = field(default_factory=deque)
    running: list[GenerationRequest] = field(default_factory=list)  # in the order of `batch`
    n_requests: int = 0
    states: dict[int, State] = field(default_factory=dict)
    _batched: bool | None = None  # see `decoding_batch`

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise BadSetting(f"max_running is {self.max_running}; an engine runs at least 1 request at once")
        self.batch = decoding_batch(self.model, self._batched)

    @property
    def has_unfinished(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.waiting or self.running)

    def add(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos_token_id: EndTokens = None,
        start_token_id: int | None = None,
        truncate: Truncation | None = None,
        source: Sequence[int] | None = None,
        constraints: TokenConstraints | None = None,
        state: State | None = None,
        keep_state: bool = False,
    ) -> int:
        """Add a request and return its number. Arguments and errors are those of `generate`.

        `state`: the state of a sequence that has read the first tokens of the prompt, but not the last; only the others
        are read. `keep_state`: the request's own state is put into `states` when it is finished; see `state_of`, too.
        """
        if sampling.beam > 1:
            raise BadSetting(
                f"beam is {sampling.beam}, and an engine samples; use generation.beam_search.beam_search instead"
            )
        source_ids = prepare_source(self.model, source, truncate)
        ids = prepare_prompt(self.model, prompt, start_token_id, truncate)
        generator = Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        ends, unread = end_token_ids(eos_token_id), tuple(ids[0 if state is None else state.lengths[0] :])
        request = GenerationRequest(self.n_requests, sampling, ends, generator, ids, unread, source_ids, constraints)
        request.state, request.keep_state = state, keep_state
        self.waiting.append(request)
        self.n_requests += 1
        return request.request

    def cancel(self, request: int) -> None:
        """Remove a request; a finished one is ignored."""
        self.waiting = deque(each for each in self.waiting if each.request != request)
        self.retain([each.request != request for each in self.running])

    def state_of(self, request: int) -> State | None:
        """The state of a running request, which has read all its tokens but the last; None where the batch has none for
        each request (on a GPU).
        """
        return self.batch.state([each.request for each in self.running].index(request))

    def next_tokens(self) -> list[StepOutput]:
        """One token for each running request, in the order they were added, after waiting ones have joined."""
        with inference_mode(self.model):
            hidden = self.forward()
            if hidden is None:
                return []
            logits = self.model.logits(hidden)
            running = self.running
            ids, logprobs = sample_tokens(
                logits,
                [each.sampling for each in running],
                [each.generator for each in running],
                [each.ids if each.sampling.repetition_penalty != 1 else () for each in running],
                self.suppress_tokens,
                self.constrain if any(each.constraints for each in running) else None,
            )
        outputs = [
            request.append_token(Token(id, logprob))
            for request, id, logprob in zip(running, ids.tolist(), logprobs.tolist(), strict=True)
        ]
        for request, output in zip(running, outputs, strict=True):
            if output.finished and request.keep_state and (state := self.state_of(request.request)) is not None:
                self.states[request.request] = state
        self.retain([output.finished is None for output in outputs])
        return sorted(outputs, key=lambda output: output.request)

    def constrain(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """Logits of all running requests without the tokens that each must not generate."""
        return torch.stack([each.constrain(row) for each, row in zip(self.running, logits, strict=True)])

    def retain(self, kept: Sequence[bool]) -> None:
        """Remove the other running requests from the batch."""
        if not all(kept):
            self.select([index for index, keep in enumerate(kept) if keep])

    def select(self, indices: Sequence[int]) -> None:
        """Keep these of the running requests."""
        if len(indices) < len(self.running):
            self.running = [self.running[index] for index in indices]
            self.batch.select(indices)

    def forward(self) -> Tensor | None:
        """Let every request read its unread tokens; hidden states after the last of each, (R, W)."""
        continuing, restarting = self.split_by_context()
        self.select(continuing)
        vectors = []
        if self.running:
            vectors.append(self.batch.step([request.unread[0] for request in self.running]))
        n_joining = min(len(self.waiting), self.max_running - len(self.running) - len(restarting))
        prefilling = restarting + [self.waiting.popleft() for _ in range(n_joining)]
        for group in group_by_length(prefilling):
            unread, sources = [request.unread for request in group], [request.source for request in group]
            vectors.append(self.batch.add(unread, sources, group[0].state))
            group[0].state = None
            self.running = self.running + group
        if not vectors:
            return None
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors)

    def split_by_context(self) -> tuple[list[int], list[GenerationRequest]]:
        """Indices of the requests that continue; and those with a full context, set to read its end again."""
        context = self.model.context
        continuing: list[int] = []
        restarting: list[GenerationRequest] = []
        for index, (request, length) in enumerate(zip(self.running, self.batch.lengths, strict=True)):
            if context is None or length < context:
                continuing.append(index)
            else:
                request.unread = keep_recent_half(request.ids, context)
                restarting.append(request)
        return continuing, restarting


def group_by_length(requests: Sequence[GenerationRequest]) -> Iterator[list[GenerationRequest]]:
    """Requests in groups to prefill together: of similar lengths, of at most PREFILL_TOKENS tokens; one with a state is
    alone.
    """
    group: list[GenerationRequest] = []
    for request in sorted(requests, key=lambda request: request.prefill_length):
        # Sorted: this request would be the longest of its group, the first is the shortest.
        n_tokens = request.prefill_length * (len(group) + 1)
        alone = request.state is not None or any(each.state is not None for each in group)
        unlike = n_tokens > PREFILL_TOKENS or any(
            request.prefill_length > 1.25 * each.prefill_length for each in group[:1]
        )
        if group and (alone or unlike):
            yield group
            group = []
        group.append(request)
    if group:
        yield group
