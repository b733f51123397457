"""Prefill: the prompts of an engine are read in chunks, and beginnings that several prompts have in common once.

Where chunks end depends on the load, the numbers of a token do not: attention is computed in blocks of positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.generation.prefix_cache import Prefix, PrefixCache, PrefixDigest
from clearstory.generation.request import GenerationRequest, Token
from clearstory.generation.sampling import NextTokenScores
from clearstory.models.base import LanguageModel, State, TokenBatch, initial_state
from clearstory.models.cross_entropy import CHUNK_LOGITS
from clearstory.models.transformer.cached_attention import BLOCK_TOKENS

CHUNK_TOKENS = 512
"""Maximum number of prompt tokens per forward pass."""

PREFIX_TOKENS = 128
"""Beginnings of prompts are kept at multiples of this length; with a prefix cache no chunk reaches beyond the next."""

PREFILL_TOKENS = 4096
"""Maximum number of tokens, padding included, of one forward pass over chunks; it limits its memory."""


@dataclass(frozen=True)
class PromptChunk:
    """The next tokens of one prompt, or of several that are the same up to its end.

    Args:
        ids: the tokens.
        past: the model's state before them; None at the beginning.
        source: source that an encoder-decoder reads before them; empty if it has been read.
        prefix: the prompt up to the end of the chunk; None where it is not shared.
        requests: the requests with these tokens.
    """

    ids: Sequence[int]
    past: State | None = None
    source: Sequence[int] = ()
    prefix: PrefixDigest | None = None
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
    def is_last(self) -> bool:
        """Whether the prompt ends with it."""
        return len(self.ids) == len(self.requests[0].unread)

    @property
    def is_kept(self) -> bool:
        """Whether a prefix cache keeps the state after it."""
        return self.prefix is not None and (self.start + len(self.ids)) % PREFIX_TOKENS == 0


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
        self.n_rounds = 0

    def add(self, request: GenerationRequest) -> None:
        """Add a request. Its beginnings are shared, unless it goes on from a state of its own."""
        request.prefix = PrefixDigest.of_source(request.source) if request.state is None else None
        self.requests.append(request)

    def read(self, max_tokens: int | None = None) -> Iterator[ReadPrompts]:
        """Read about so many tokens, or all for None; the requests that are finished thereby.

        Those with the fewest unread tokens come first, and where prompts end nothing more is read, so that the first
        tokens of short ones need not wait for long ones; each eighth time the one that has waited longest comes first,
        so that none waits for ever.
        """
        self.n_rounds += bool(self.requests)
        left, oldest = max_tokens, self.n_rounds % 8 == 0
        while self.requests and (left is None or left > 0):
            if found := self.read_cached():
                yield found
                continue
            if left is None:
                chunks = self.next_chunks(CHUNK_TOKENS)
            else:
                chunks = self.choose_chunks(left, oldest)
                left, oldest = left - sum(chunk.length for chunk in chunks), False
            ended = False
            for group in group_by_length(chunks):
                if found := self.read_chunks(group):
                    ended = True
                    yield found
            if ended and left is not None:
                return

    def choose_chunks(self, max_tokens: int, oldest: bool) -> list[PromptChunk]:
        """At least one chunk, more as long as they have at most so many tokens; `oldest`: the first request's first.

        After one that ends its prompt, only others that do.
        """
        chunks = self.next_chunks(min(max(max_tokens, BLOCK_TOKENS), CHUNK_TOKENS))
        first = chunks[:oldest]
        chosen: list[PromptChunk] = []
        for chunk in first + sorted(chunks[len(first) :], key=lambda chunk: len(chunk.requests[0].unread)):
            if not chosen or (chunk.length <= max_tokens and chunk.is_last >= chosen[0].is_last):
                chosen.append(chunk)
                max_tokens -= chunk.length
        return chosen

    def next_chunks(self, max_tokens: int) -> list[PromptChunk]:
        """The next tokens of each request, in the order of requests."""
        chunks: dict[tuple[int, bytes | int], PromptChunk] = {}
        for request in self.requests:
            start = 0 if request.state is None else request.state.lengths[0]
            ids = request.unread[: self.chunk_length(request, max_tokens)]
            prefix = None if request.prefix is None else request.prefix.extended(ids)
            source = request.source if request.state is None else ()
            key = start, request.request if prefix is None else prefix.digest
            chunks.setdefault(key, PromptChunk(ids, request.state, source, prefix)).requests.append(request)
        return list(chunks.values())

    def chunk_length(self, request: GenerationRequest, max_tokens: int) -> int:
        """Number of the next tokens to read, at most so many.

        A chunk ends with the prompt or at the end of a block of positions. A last block of one token is a chunk of its
        own, since attention of one token is computed by other kernels.
        """
        start = 0 if request.state is None else request.state.lengths[0]
        end = start + len(request.unread)
        last = end - 1 if (end - 1) % BLOCK_TOKENS == 0 and end - 1 > start else end
        most = start + max_tokens
        if self.cache is not None:
            most = min(most, start - start % PREFIX_TOKENS + PREFIX_TOKENS)
        if most < last:
            most = max(most - most % BLOCK_TOKENS, start - start % BLOCK_TOKENS + BLOCK_TOKENS)
        return min(most, last) - start

    def read_cached(self) -> ReadPrompts | None:
        """Take from the cache what it has of the prompts; the requests that are finished thereby."""
        done: list[tuple[GenerationRequest, Prefix]] = []
        if self.cache is None:
            return None
        for request in list(self.requests):
            while request.unread and request.prefix is not None and request.prompt_logprobs is None:
                start = 0 if request.state is None else request.state.lengths[0]
                ids = request.unread[: PREFIX_TOKENS - start % PREFIX_TOKENS]
                chunk = PromptChunk(ids, request.state, (), request.prefix.extended(ids))
                found = self.cache.get(chunk.prefix) if chunk.is_kept and chunk.prefix is not None else None
                if found is None:
                    break
                request.n_cached += len(ids)
                self.take(request, chunk, found.state)
                if not request.unread:
                    done.append((request, found))
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
            if self.cache is not None and chunk.prefix is not None and chunk.is_kept:
                self.cache.put(chunk.prefix, Prefix(state, hidden[row, len(chunk.ids) - 1].clone()))
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
        request.prefix = chunk.prefix
        if request.prefix is not None and chunk.is_kept:
            request.prefix = request.prefix.marked()
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
