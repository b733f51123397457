"""Prefill: the prompts of an engine are read in chunks, and chunks that begin several prompts are read once.

Chunks begin at fixed positions, whatever else is read in the meantime: a request's numbers do not depend on the load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.generation.prefix_cache import Prefix, PrefixCache, extend_digest
from clearstory.generation.request import GenerationRequest, Token
from clearstory.generation.sampling import NextTokenScores
from clearstory.models.base import LanguageModel, State, TokenBatch, initial_state
from clearstory.models.cross_entropy import CHUNK_LOGITS

CHUNK_TOKENS = 128
"""Largest number of prompt tokens that one forward pass reads of a request; chunks begin at its multiples."""

PREFILL_TOKENS = 4096
"""Largest number of tokens, padding included, of one forward pass over chunks; it bounds its memory."""


@dataclass(frozen=True)
class PromptChunk:
    """The next tokens of one prompt, or of several that are the same up to its end.

    Args:
        ids: the tokens.
        past: the model's state before them; None at the beginning.
        source: source that an encoder-decoder reads before them; empty if it has been read.
        path: digests of the prompt's beginnings, this chunk's last; None where it is not shared.
        requests: the requests with these tokens.
    """

    ids: Sequence[int]
    past: State | None = None
    source: Sequence[int] = ()
    path: tuple[bytes, ...] | None = None
    requests: list[GenerationRequest] = field(default_factory=list)

    @property
    def start(self) -> int:
        """Position of the first token."""
        return 0 if self.past is None else self.past.lengths[0]

    @property
    def length(self) -> int:
        """Number of tokens; of the source, if that is longer."""
        return max(len(self.ids), len(self.source))

    @property
    def is_full(self) -> bool:
        """Whether it ends where the next chunk of a longer prompt begins."""
        return (self.start + len(self.ids)) % CHUNK_TOKENS == 0


@dataclass(frozen=True)
class ReadPrompts:
    """Requests whose prompts have been read: hidden states after their last tokens, (N, K), and their state."""

    requests: list[GenerationRequest]
    hidden: Float[Tensor, "N K"]
    state: State


class Prefill:
    """The requests of an engine whose prompts are being read.

    Args:
        model: the model.
        device: its device.
        cache: beginnings of prompts that are kept; None where only prompts that are read at the same time share them.
    """

    def __init__(self, model: LanguageModel, device: torch.device, cache: PrefixCache | None = None) -> None:
        self.model, self.device, self.cache = model, device, cache
        self.requests: list[GenerationRequest] = []

    def add(self, request: GenerationRequest) -> None:
        """Add a request. Its beginnings are shared, unless it goes on from a state of its own."""
        request.path = (extend_digest(b"", request.source),) if request.state is None else None
        self.requests.append(request)

    def read(self, max_tokens: int | None = None) -> Iterator[ReadPrompts]:
        """Read so many tokens, at least one chunk, or all for None; the requests that are finished thereby.

        The request that has waited longest reads a chunk, then those with the fewest unread tokens do: short prompts
        need not wait for long ones, and none waits for ever.
        """
        used = 0
        while self.requests and (max_tokens is None or used < max_tokens):
            if found := self.read_cached():
                yield found
                continue
            chunks = self.next_chunks()
            if max_tokens is not None:
                first = chunks[: not used]
                chunks = first + sorted(chunks[len(first) :], key=lambda chunk: len(chunk.requests[0].unread))
                chosen = []
                for chunk in chunks:
                    if not used or used + chunk.length <= max_tokens:
                        chosen.append(chunk)
                        used += chunk.length
                if not chosen:
                    return
                chunks = chosen
            for group in group_by_length(chunks):
                if found := self.read_chunks(group):
                    yield found

    def next_chunks(self) -> list[PromptChunk]:
        """The next chunk of each request, in the order of requests."""
        chunks: dict[bytes | int, PromptChunk] = {}
        for request in self.requests:
            start = 0 if request.state is None else request.state.lengths[0]
            ids = request.unread[: CHUNK_TOKENS - start % CHUNK_TOKENS]
            path = None if request.path is None else (*request.path, extend_digest(request.path[-1], ids))
            source = request.source if request.state is None else ()
            key = request.request if path is None else path[-1]
            chunks.setdefault(key, PromptChunk(ids, request.state, source, path)).requests.append(request)
        return list(chunks.values())

    def read_cached(self) -> ReadPrompts | None:
        """Take from the cache what it has of the prompts; the requests that are finished thereby."""
        if self.cache is None:
            return None
        done: list[tuple[GenerationRequest, Prefix]] = []
        found = True
        while found:
            found = False
            for chunk in self.next_chunks():
                prefix = None if chunk.path is None or not chunk.is_full else self.cache.get(chunk.path)
                takers = [each for each in chunk.requests if each.prompt_logprobs is None]
                if prefix is None or not takers:
                    continue
                found = True
                for request in takers:
                    request.n_cached += len(chunk.ids)
                    self.take(request, chunk, prefix.state)
                    if not request.unread:
                        done.append((request, prefix))
        if not done:
            return None
        states = [prefix.state for _, prefix in done]
        hidden = torch.stack([prefix.hidden for _, prefix in done])
        return ReadPrompts([request for request, _ in done], hidden, type(states[0]).join(states))

    def read_chunks(self, chunks: Sequence[PromptChunk]) -> ReadPrompts | None:
        """Read chunks in one forward pass; the requests that are finished thereby."""
        chunks = sorted(chunks, key=lambda chunk: chunk.past is not None)
        fresh = [chunk.source for chunk in chunks if chunk.past is None]
        states = [initial_state(self.model, len(fresh), fresh, self.device)] if fresh else []
        states += [chunk.past for chunk in chunks if chunk.past is not None]
        past = states[0] if len(states) == 1 else type(states[0]).join(states)
        tokens = TokenBatch.from_sequences([chunk.ids for chunk in chunks], self.device)
        hidden, after = self.model.forward(tokens, past)
        assert after is not None
        done: list[tuple[GenerationRequest, int]] = []
        for row, chunk in enumerate(chunks):
            self.score(chunk, hidden[row, : len(chunk.ids)])
            state: State = after if len(chunks) == 1 else after.select([row])
            if self.cache is not None and chunk.path is not None and chunk.is_full:
                self.cache.put(chunk.path, Prefix(state, hidden[row, len(chunk.ids) - 1]))
            for number, request in enumerate(chunk.requests):
                request.n_cached += len(chunk.ids) if number else 0
                self.take(request, chunk, state)
                if not request.unread:
                    done.append((request, row))
        if not done:
            return None
        rows = [row for _, row in done]
        last = hidden[rows, [len(chunks[row].ids) - 1 for row in rows]]
        return ReadPrompts([request for request, _ in done], last, after.select(rows))

    def take(self, request: GenerationRequest, chunk: PromptChunk, state: State) -> None:
        """Let a request go on after a chunk; one that has read all leaves."""
        request.path = chunk.path
        request.unread = request.unread[len(chunk.ids) :]
        request.state = state if request.unread else None
        if not request.unread:
            self.requests.remove(request)

    def score(self, chunk: PromptChunk, hidden: Float[Tensor, "T K"]) -> None:
        """Append the scores of the tokens after each of a chunk's to the requests that asked for them."""
        wanted = [each for each in chunk.requests if each.prompt_logprobs is not None and not each.n_generated]
        if not wanted:
            return
        count = max(each.prompt_logprobs or 0 for each in wanted)
        for rows in torch.split(torch.arange(len(hidden)), max(1, CHUNK_LOGITS // self.model.vocab)):
            scores = NextTokenScores.of(self.model.logits(hidden[rows]))
            top = scores.likeliest([count] * len(rows))
            for request in wanted:
                first = chunk.start + int(rows[0]) + 1
                ids = request.ids[first : first + len(rows)]
                own = scores.first(len(ids)).logprobs(torch.tensor(ids, dtype=torch.long, device=hidden.device))
                request.prompt_tokens += [
                    Token(id, logprob, likeliest[: request.prompt_logprobs])
                    for id, logprob, likeliest in zip(ids, own.tolist(), top, strict=False)
                ]


def group_by_length(chunks: Sequence[PromptChunk]) -> Iterator[list[PromptChunk]]:
    """Chunks in groups to read together: of similar lengths, of at most PREFILL_TOKENS tokens."""
    group: list[PromptChunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.length):
        # Sorted: this chunk would be the longest of its group, the first is the shortest.
        n_tokens = chunk.length * (len(group) + 1)
        if group and (n_tokens > PREFILL_TOKENS or chunk.length > 1.25 * group[0].length):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group
