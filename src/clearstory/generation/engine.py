"""Generation by sampling: `Engine` for many requests at once (continuous batching), `generate` for one.

Every call of `Engine.next_tokens` gives each running request one token. New requests join the batch at any time, after
their prompts have been read (prefill.py), and finished ones leave it; the tokens of a request do not depend on the
others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from clearstory.errors import BadSetting, VocabularyMismatch
from clearstory.generation.constraints import EndTokens, TokenConstraints, TokenMask, end_token_ids
from clearstory.generation.decoding_batch import decoding_batch, model_device
from clearstory.generation.prefill import Prefill
from clearstory.generation.prefix_cache import PrefixCache
from clearstory.generation.request import GenerationRequest, StepOutput
from clearstory.generation.request import Token as Token
from clearstory.generation.sampling import NextTokenScores, choose_tokens
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, State, inference_mode
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source


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
        truncate: "left" truncates a prompt longer than the context at its start.
        source: source ids of an encoder-decoder, whose prompt is the start of the target, usually empty.
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
        max_running: maximum number of requests in prefill or generation; others wait.
        suppress_tokens: ids that are never generated.
        prefill_tokens: about the largest number of prompt tokens that one step reads, so that long prompts do not keep
            running requests waiting; None to read all waiting prompts in the next step.
        prefix_cache: cache of prompt prefixes, or None.
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
    prefill_tokens: int | None = None
    prefix_cache: PrefixCache | None = None
    waiting: deque[GenerationRequest] = field(default_factory=deque)
    running: list[GenerationRequest] = field(default_factory=list)  # in the order of `batch`
    n_requests: int = 0
    states: dict[int, State] = field(default_factory=dict)
    _batched: bool | None = None  # see `decoding_batch`

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise BadSetting(f"max_running is {self.max_running}; it must be at least 1")
        if self.prefill_tokens is not None and self.prefill_tokens < 1:
            raise BadSetting(f"prefill_tokens is {self.prefill_tokens}; it must be at least 1")
        self.batch = decoding_batch(self.model, self._batched)
        self.prefill = Prefill(self.model, model_device(self.model), self.prefix_cache)

    @property
    def has_unfinished(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.waiting or self.prefill.requests or self.running)

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
        token_mask: TokenMask | None = None,
        top_logprobs: int = 0,
        prompt_logprobs: int | None = None,
        state: State | None = None,
        keep_state: bool = False,
    ) -> int:
        """Add a request and return its number. The other arguments and the errors are those of `generate`.

        Args:
            prompt: prompt ids.
            sampling: how tokens are chosen.
            token_mask: which tokens a grammar allows; the text ends when it is finished.
            top_logprobs: number of alternatives of each generated token.
            prompt_logprobs: number of alternatives of each prompt token after the first; None for no scores of these.
            state: the state of a sequence that has read the first tokens of the prompt, but not the last; only the
                others are read.
            keep_state: whether the request's own state is put into `states` when it is finished; see `state_of`, too.
        """
        if sampling.beam > 1:
            raise BadSetting(
                f"beam is {sampling.beam}, but an engine only samples; use generation.beam_search.beam_search instead"
            )
        wrong = next((id for id, _ in sampling.logit_bias if not 0 <= id < self.model.vocab), None)
        if wrong is not None:
            raise VocabularyMismatch(
                f"logit_bias has token id {wrong:,}, but the model's vocabulary has ids from 0 to "
                f"{self.model.vocab - 1:,}; omit it"
            )
        source_ids = prepare_source(self.model, source, truncate)
        ids = prepare_prompt(self.model, prompt, start_token_id, truncate)
        generator = Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        ends, unread = end_token_ids(eos_token_id), tuple(ids[0 if state is None else state.lengths[0] :])
        request = GenerationRequest(
            self.n_requests, sampling, ends, generator, ids, unread, source_ids, constraints, token_mask, top_logprobs,
            prompt_logprobs, keep_state, state,
        )  # fmt: skip
        self.waiting.append(request)
        self.n_requests += 1
        return request.request

    def cancel(self, request: int) -> None:
        """Remove a request; a finished one is ignored."""
        self.waiting = deque(each for each in self.waiting if each.request != request)
        self.prefill.requests = [each for each in self.prefill.requests if each.request != request]
        self.retain([each.request != request for each in self.running])

    def state_of(self, request: int) -> State | None:
        """The state of a running request, which has read all its tokens but the last; None where the batch has none for
        each request (on a GPU).
        """
        return self.batch.state([each.request for each in self.running].index(request))

    def next_tokens(self) -> list[StepOutput]:
        """One token for each running request, in the order they were added, after waiting ones have been read.

        With `prefill_tokens` there may be none yet.
        """
        with inference_mode(self.model):
            hidden = self.forward()
            if hidden is None:
                return []
            scores = NextTokenScores.of(self.model.logits(hidden))
            running = self.running
            ids = choose_tokens(
                scores.logits,
                [each.sampling for each in running],
                [each.generator for each in running],
                [each.ids if each.sampling.repetition_penalty != 1 else () for each in running],
                self.suppress_tokens,
                self.constrain if any(each.is_constrained for each in running) else None,
                [each.generated if each.sampling.changes_generated else () for each in running],
            )
            top = scores.likeliest([each.top_logprobs for each in running])
            logprobs = scores.logprobs(ids)
        outputs = [
            request.append_token(Token(*token))
            for request, *token in zip(running, ids.tolist(), logprobs.tolist(), top, strict=True)
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
        """Let every running request read its last token, and those that wait their prompts, as far as a step reads
        them; hidden states after the last token of each that has read all, (R, W).
        """
        continuing, restarting = self.split_by_context()
        self.select(continuing)
        vectors = []
        if self.running:
            vectors.append(self.batch.step([request.unread[0] for request in self.running]))
        for request in restarting:
            self.prefill.add(request)
        while self.waiting and len(self.running) + len(self.prefill.requests) < self.max_running:
            self.prefill.add(self.waiting.popleft())
        for read in self.prefill.read(self.prefill_tokens):
            vectors.append(read.hidden)
            self.batch.add(read.state)
            self.running = self.running + read.requests
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
