"""Engine: many requests written at once; `generate`: one.

Every step gives each running request one token. Newcomers join the rows already running, those that are finished
leave them; what a request is answered does not depend on its company.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.generation.sampling import sample_tokens
from clearstory.generation.settings import Sampling
from clearstory.models.base import LanguageModel, TokenBatch, State
from clearstory.models.base import inference_mode, initial_state
from clearstory.models.prompts import Truncation, keep_recent_half, prepare_prompt, prepare_source

PREFILL_TOKENS = 4096
"""Most tokens, padding included, that newcomers read at once: bounds the memory of one step."""


@dataclass(frozen=True)
class Token:
    """A token written, and its log-probability under the model's own distribution (in nats, so 0 is certain)."""

    id: int
    logprob: float


@dataclass(frozen=True)
class StepOutput:
    """A request's next token. `finished` says why it was the last: an end token, or as many as were asked for."""

    request: int
    token: Token
    finished: Literal["eos", "length"] | None


@dataclass
class Row:
    """A request under way."""

    request: int
    sampling: Sampling
    eos: int | None
    generator: torch.Generator
    ids: list[int]  # the prompt and what has been written
    unread: Sequence[int]  # what the model has not read yet
    source: Sequence[int] = ()  # what it reads before anything is written, where it does
    written: int = 0

    @property
    def size(self) -> int:
        """Tokens of the longer of what is to be read."""
        return max(len(self.unread), len(self.source))


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    eos: int | None = None,
    begin: int | None = None,
    truncate: Truncation | None = None,
    source: Sequence[int] | None = None,
    never: Sequence[int] = (),
) -> Iterator[Token]:
    """Write on from a prompt, token by token, until `eos` (which is the last token given) or `sampling.max_tokens`.

    An encoder-decoder reads a `source`, and its prompt is what it has written already: mostly nothing. `never` are
    tokens that are not to be written.

    A prompt may be as long as the context. When prompt and answer outgrow it, the model begins anew with the last half
    of the context: the answer goes on for as long as was asked. `begin` is what an empty prompt reads; pass eos=None to
    write on past the end token. Stop strings are the Writer's business, beams are `search`'s.

    Raises ContextOverflow, BadInput, VocabularyMismatch, BadSetting or CannotDo before the first token is asked for.
    """
    engine = Engine(model, never=tuple(never))
    engine.add(prompt, sampling, eos=eos, begin=begin, truncate=truncate, source=source)

    def tokens() -> Iterator[Token]:
        while engine.busy:
            for reply in engine.step():
                yield reply.token

    return tokens()


@dataclass
class Engine:
    """Continuous batching over one model: `add` requests whenever they come, `step` until none is left.

    Args:
        model: any LanguageModel.
        limit: most requests under way at once; others wait their turn.
        never: tokens that nobody is to write.

    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> engine = Engine(build(NANOGPT_CHAR, seed=1))
    >>> first = engine.add([1, 2, 3], Sampling(max_tokens=2, seed=5))
    >>> second = engine.add([4], Sampling(max_tokens=1, temperature=0))
    >>> [[reply.request for reply in engine.step()] for _ in range(2)]
    [[0, 1], [0]]
    """

    model: LanguageModel
    limit: int = 64
    never: tuple[int, ...] = ()
    waiting: deque[Row] = field(default_factory=deque)
    running: list[Row] = field(default_factory=list)  # their states stand in `state`, in this order
    state: State | None = None
    count: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BadSetting(f"an engine's limit is {self.limit}; let it run at least 1 request at once")

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.waiting or self.running)

    def add(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos: int | None = None,
        begin: int | None = None,
        truncate: Truncation | None = None,
        source: Sequence[int] | None = None,
    ) -> int:
        """Take a request; its number. Refuses at once what cannot be answered, as `generate` does."""
        if sampling.beam > 1:
            raise BadSetting(
                f"beam is {sampling.beam}, and an engine samples; search with generation.search.beam_search"
            )
        read = prepare_source(self.model, source, truncate)
        ids = prepare_prompt(self.model, prompt, begin, truncate)
        generator = torch.Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        self.waiting.append(Row(self.count, sampling, eos, generator, ids, tuple(ids), read))
        self.count += 1
        return self.count - 1

    def cancel(self, request: int) -> None:
        """Forget a request, at whatever stage; one that is finished is let be."""
        self.waiting = deque(row for row in self.waiting if row.request != request)
        self.keep([row.request != request for row in self.running])

    def step(self) -> list[StepOutput]:
        """One token for each request under way, in the order they were added, after letting in those that wait."""
        with inference_mode(self.model):
            hidden = self.advance()
            if hidden is None:
                return []
            logits = self.model.logits(hidden)
            rows = self.running
            ids, logprobs = sample_tokens(
                logits,
                [row.sampling for row in rows],
                [row.generator for row in rows],
                [row.ids if row.sampling.repetition_penalty != 1 else () for row in rows],
                self.never,
            )
        replies = [
            self.take(row, Token(id, logprob))
            for row, id, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True)
        ]
        self.keep([reply.finished is None for reply in replies])
        return sorted(replies, key=lambda reply: reply.request)

    def take(self, row: Row, token: Token) -> StepOutput:
        """Write a token down as its request's next."""
        row.ids.append(token.id)
        row.unread = (token.id,)
        row.written += 1
        ended = row.eos is not None and token.id == row.eos
        enough = row.written >= row.sampling.max_tokens
        return StepOutput(row.request, token, "eos" if ended else "length" if enough else None)

    def keep(self, stays: Sequence[bool]) -> None:
        """Let the other rows go, and their memory with them."""
        if all(stays):
            return
        places = [place for place, stay in enumerate(stays) if stay]
        self.running = [self.running[place] for place in places]
        self.state = self.state.select(places) if self.state is not None and places else None

    def advance(self) -> Tensor | None:
        """Have every row read what it has not; what the model knows at each row's end, (R, W)."""
        vectors: list[Tensor] = []
        states: list[State] = []
        order: list[Row] = []
        going, renewing = self.sort()
        if going:
            assert self.state is not None
            state = self.state if len(going) == len(self.running) else self.state.select(going)
            rows = [self.running[place] for place in going]
            hidden, after = self.model.forward(TokenBatch(self.ids([row.unread for row in rows])), state)
            assert after is not None
            vectors, states, order = [hidden[:, -1]], [after], rows
        fresh = renewing + [
            self.waiting.popleft() for _ in range(min(len(self.waiting), self.limit - len(self.running)))
        ]
        for group in groups(fresh):
            tokens = TokenBatch.from_sequences([row.unread for row in group], self.device)
            start = initial_state(self.model, len(group), [row.source for row in group], self.device)
            hidden, after = self.model.forward(tokens, start)
            assert after is not None
            vectors.append(hidden[torch.arange(len(group), device=hidden.device), tokens.last_positions()])
            states.append(after)
            order += group
        if not order:
            return None
        self.running = order
        self.state = states[0] if len(states) == 1 else type(states[0]).join(states)
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors)

    def sort(self) -> tuple[list[int], list[Row]]:
        """Places of the rows that can read on, and the rows whose context is full, set to begin anew."""
        context = self.model.context
        if context is None or self.state is None:
            return list(range(len(self.running))), []
        going: list[int] = []
        renewing: list[Row] = []
        for place, (row, length) in enumerate(zip(self.running, self.state.lengths, strict=True)):
            if length < context:
                going.append(place)
            else:
                row.unread = keep_recent_half(row.ids, context)
                renewing.append(row)
        return going, renewing

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        if isinstance(self.model, torch.nn.Module):
            weight = next(iter(self.model.parameters()), None)
            if weight is not None:
                return weight.device
        return torch.device("cpu")

    def ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Equal rows as one tensor on the model's device."""
        return torch.tensor(rows, device=self.device)


def groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Newcomers to be read together: of like lengths, so that little is padding, and not too much at once."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: row.size):
        # Sorted: this row would be the longest of its group, the first is the shortest.
        whole = row.size * (len(group) + 1)
        if group and (whole > PREFILL_TOKENS or row.size > 1.25 * group[0].size):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
