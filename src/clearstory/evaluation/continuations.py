"""Log-likelihood of continuations given their contexts, for every causal model and for encoder-decoders.

What sequences have in common is computed once. A decoder reads them as trees of tokens without padding; other models
read a context that several continuations share, such as that of the choices of a question, and branch its state. Logits
are computed only where a token of a continuation is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, ContextOverflow, VocabularyMismatch
from clearstory.evaluation.continuation_requests import (
    ContinuationRequest,
    batches_of,
    common_length,
    shorten,
    tree_tokens,
    trees_of,
)
from clearstory.models.base import LanguageModel, State, TokenBatch, inference_mode, initial_state, reads_source
from clearstory.models.cross_entropy import CHUNK_LOGITS
from clearstory.models.inference_model import inference_model
from clearstory.models.transformer.branched_sequences import BranchedSequences, TokenTree, tree_positions
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.inference import DecoderForInference, can_join

MAX_BATCH_TOKENS = 2048
"""Tokens per forward pass; a longer sequence has its own."""

MIN_PREFIX = 32
"""Minimum number of tokens common to all sequences, such as the examples of a prompt, that are processed once before
all batches.
"""


@dataclass(frozen=True)
class ContinuationScore:
    """Log-likelihood of a continuation, and whether it is the greedy one.

    Args:
        log_likelihood: Σ ln p of its tokens, in nats.
        tokens: number of its tokens.
        is_greedy: whether each of its tokens is the most likely one.
    """

    log_likelihood: float
    tokens: int
    is_greedy: bool


@dataclass(frozen=True)
class PredictedTokens:
    """What a batch predicts: for each pair, the row of the hidden states, the token, and the request it belongs to."""

    rows: list[int]
    targets: list[int]
    requests: list[int]

    @classmethod
    def empty(cls) -> PredictedTokens:
        """Nothing predicted yet."""
        return cls([], [], [])

    def add(self, rows: Sequence[int], targets: Sequence[int], request: int) -> None:
        """Add the tokens of a request, predicted from these rows."""
        self.rows.extend(rows)
        self.targets.extend(targets)
        self.requests.extend([request] * len(targets))


class ContinuationScorer:
    """Scores continuations with a model. An fp32 decoder on a CPU is prepared for inference once, in the constructor.

    Args:
        model: a causal model or an encoder-decoder.
        start_token_id: the token that the decoder of an encoder-decoder starts from.
        max_batch_tokens: tokens of a forward pass.
    """

    def __init__(
        self, model: LanguageModel, start_token_id: int | None = None, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> None:
        self.model, self.start_token_id, self.max_batch_tokens = model, start_token_id, max_batch_tokens
        self.decoder: DecoderForInference | None = None
        if can_join(model) and not cast(Transformer, model).config.recall:
            self.model = inference_model(model, "fp32")
            self.decoder = cast(Any, self.model).base_model
        weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
        self.device = torch.device("cpu") if weight is None else weight.device
        # In mixed precision, as in training, caches have the dtype of the weights and new keys another.
        self.branches = weight is None or getattr(model, "compute_dtype", None) in (None, weight.dtype)

    def score(
        self, requests: Sequence[ContinuationRequest], on_progress: Callable[[int, int], None] | None = None
    ) -> list[ContinuationScore]:
        """The scores of all requests, in their order; contexts that exceed the model's lose their beginning.

        Raises BadInput for an empty context or continuation, ContextOverflow for a continuation that alone is longer
        than the context, VocabularyMismatch for an id outside the vocabulary.
        """
        for request in requests:
            self.check(request)
        nats = [0.0] * len(requests)
        greedy = [True] * len(requests)
        done = 0
        with inference_mode(self.model):
            for hidden, predicted in self.forward_batches(requests):
                done += self.add_scores(hidden, predicted, nats, greedy)
                if on_progress is not None:
                    on_progress(done, len(requests))
        return [
            ContinuationScore(-total, len(request.continuation), is_greedy)
            for total, request, is_greedy in zip(nats, requests, greedy, strict=True)
        ]

    def check(self, request: ContinuationRequest) -> None:
        """Raises the errors of `score` for one request."""
        if not request.continuation or not request.context:
            raise BadInput(
                f"a continuation of {len(request.continuation):,} tokens after {len(request.context):,} has no "
                "likelihood; both need at least one token"
            )
        context, size = self.model.context, len(request.continuation)
        if context is not None and size > context:
            raise ContextOverflow(
                f"a continuation of {size:,} tokens does not fit the model's context of {context:,}; shorten it"
            )
        worst = max(max(request.context), max(request.continuation))
        if worst >= self.model.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.model.vocab:,}; "
                "open the tokenizer that was saved with the model"
            )

    def forward_batches(self, requests: Sequence[ContinuationRequest]) -> Iterator[tuple[Tensor, PredictedTokens]]:
        """Batch by batch, hidden states (N, W) and what is predicted from them."""
        if reads_source(self.model):
            yield from self.forward_targets(requests)
            return
        sequences = [shorten(request, self.model.context) for request in requests]
        state = None
        contexts = [context[:-1] for context, _ in sequences]
        shared = common_length(min(contexts), max(contexts)) if len(set(contexts)) > 1 else 0
        if shared >= MIN_PREFIX and self.branches:
            state = self.read_prefix(contexts[0][:shared])
            sequences = [(context[shared:], continuation) for context, continuation in sequences]
        if self.decoder is not None:
            yield from self.forward_trees(self.decoder, sequences, state)
        else:
            yield from self.forward_branches(sequences, state)

    def read_prefix(self, prefix: Sequence[int]) -> State:
        """The state after tokens that all sequences begin with."""
        _, state = self.model.forward(TokenBatch.from_sequences([prefix], self.device), self.model.init_state(1))
        assert state is not None, "a forward pass with a state returns one"
        return state

    def forward_trees(
        self, decoder: DecoderForInference, sequences: Sequence[Sequence[Sequence[int]]], state: State | None
    ) -> Iterator[tuple[Tensor, PredictedTokens]]:
        """A decoder's hidden states of trees of sequences, which share their beginnings."""
        rows = None if state is None else cast(Any, state).rows[0]
        before = 0 if rows is None else rows.length
        inputs = [[*context, *continuation[:-1]] for context, continuation in sequences]
        found = trees_of(inputs, self.max_batch_tokens)
        for sized in batches_of(found, tree_tokens, self.max_batch_tokens):
            batch = [group for group, _ in sized]
            trees = [TokenTree.from_sequences([inputs[index] for index in group]) for group in batch]
            ids = torch.tensor([id for tree in trees for id in tree.ids])
            attend = BranchedSequences(decoder.config, trees, rows)
            hidden = decoder.forward_rows(ids, tree_positions(trees, before), attend)
            predicted, first = PredictedTokens.empty(), 0
            for group, tree in zip(batch, trees, strict=True):
                for index, path in zip(group, tree.paths, strict=True):
                    continuation = sequences[index][1]
                    predicted.add([first + node for node in path[-len(continuation) :]], continuation, index)
                first += len(tree.ids)
            yield hidden, predicted

    def forward_branches(
        self, sequences: Sequence[Sequence[Sequence[int]]], prefix: State | None
    ) -> Iterator[tuple[Tensor, PredictedTokens]]:
        """Hidden states of any model: a context that several continuations share is read once and its state branched;
        all other sequences are read whole.
        """
        order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index][0]), sequences[index][0]))
        groups = [list(group) for _, group in groupby(order, key=lambda index: sequences[index][0])]

        def is_shared(group: list[int]) -> bool:
            return self.branches and len(group) > 1 and len(sequences[group[0]][0]) > 1

        single = [index for group in groups if not is_shared(group) for index in group]
        single.sort(key=lambda index: sum(map(len, sequences[index])))
        whole = [[*context, *continuation[:-1]] for context, continuation in sequences]
        for batch in batches_of(single, lambda index: len(whole[index]), self.max_batch_tokens, padded=True):
            state = None if prefix is None else prefix.select([0] * len(batch))
            yield self.forward_rows([whole[index] for index in batch], state, batch, sequences)

        def tokens(group: list[int]) -> int:
            return max(len(sequences[index][0]) + len(group) * len(sequences[index][1]) for index in group)

        for several in batches_of(filter(is_shared, groups), tokens, self.max_batch_tokens, padded=True):
            contexts = [sequences[group[0]][0][:-1] for group in several]
            state = self.model.init_state(len(several)) if prefix is None else prefix.select([0] * len(several))
            _, state = self.model.forward(TokenBatch.from_sequences(contexts, self.device), state)
            assert state is not None, "a forward pass with a state returns one"
            batch = [index for group in several for index in group]
            state = state.select([number for number, group in enumerate(several) for _ in group])
            rest = [[sequences[index][0][-1], *sequences[index][1][:-1]] for index in batch]
            yield self.forward_rows(rest, state, batch, sequences)

    def forward_targets(self, requests: Sequence[ContinuationRequest]) -> Iterator[tuple[Tensor, PredictedTokens]]:
        """An encoder-decoder's hidden states of continuations; a source of several is encoded once."""
        if self.start_token_id is None:
            raise CannotDo("this model's folder does not specify the decoder start token")
        context = self.model.context or 0
        sources = [request.context[-context:] if context else request.context for request in requests]
        sequences = [((self.start_token_id,), request.continuation) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: (len(sources[index]), sources[index]))
        groups = [list(group) for _, group in groupby(order, key=lambda index: sources[index])]

        def tokens(group: list[int]) -> int:
            return max(len(sources[index]) + len(group) * len(sequences[index][1]) for index in group)

        for several in batches_of(groups, tokens, self.max_batch_tokens, padded=True):
            state = initial_state(self.model, len(several), [sources[group[0]] for group in several], self.device)
            batch = [index for group in several for index in group]
            state = state.select([number for number, group in enumerate(several) for _ in group])
            inputs = [[*sequences[index][0], *sequences[index][1][:-1]] for index in batch]
            yield self.forward_rows(inputs, state, batch, sequences)

    def forward_rows(
        self,
        inputs: Sequence[Sequence[int]],
        state: State | None,
        batch: Sequence[int],
        sequences: Sequence[Sequence[Sequence[int]]],
    ) -> tuple[Tensor, PredictedTokens]:
        """Hidden states of a padded batch, (N, W), and what is predicted from the last tokens of each row."""
        hidden, _ = self.model.forward(TokenBatch.from_sequences(inputs, self.device), state)
        predicted = PredictedTokens.empty()
        for row, (index, ids) in enumerate(zip(batch, inputs, strict=True)):
            continuation = sequences[index][1]
            end = row * hidden.shape[1] + len(ids)
            predicted.add(range(end - len(continuation), end), continuation, index)
        return hidden.flatten(0, 1), predicted

    def add_scores(self, hidden: Tensor, predicted: PredictedTokens, nats: list[float], greedy: list[bool]) -> int:
        """Add the negative log-likelihoods of a batch to those of its requests; returns their number."""
        needed, pairs = torch.unique(torch.tensor(predicted.rows, device=hidden.device), return_inverse=True)
        targets = torch.tensor(predicted.targets, device=hidden.device)
        order = torch.argsort(pairs, stable=True)
        requests = torch.tensor(predicted.requests)
        step = max(1, CHUNK_LOGITS // self.model.vocab)
        for start in range(0, len(needed), step):
            logits = self.model.logits(hidden[needed[start : start + step]])
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            inside = order[(pairs[order] >= start) & (pairs[order] < start + step)]
            rows, wanted = pairs[inside] - start, targets[inside]
            values = torch.logsumexp(logits, -1)[rows] - logits[rows, wanted]
            is_best = logits.argmax(-1)[rows] == wanted
            for request, value, best in zip(
                requests[inside.cpu()].tolist(), values.double().tolist(), is_best.tolist(), strict=True
            ):
                nats[request] += value
                greedy[request] = greedy[request] and best
        return len(set(predicted.requests))


def score_continuations(
    model: LanguageModel, requests: Sequence[ContinuationRequest], *, start_token_id: int | None = None
) -> list[ContinuationScore]:
    """The log-likelihood of each continuation after its context; see `ContinuationScorer`."""
    return ContinuationScorer(model, start_token_id).score(requests)
