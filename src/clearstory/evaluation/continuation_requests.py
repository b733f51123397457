"""Requests for the likelihood of continuations: windows of long texts, groups that share beginnings, and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TREE_TOKENS = 256
"""Maximum number of tokens in a tree of sequences that share little, since attention is computed between all of them
and masked.
"""


@dataclass(frozen=True)
class ContinuationRequest:
    """Token ids of a context and of the continuation to score.

    Args:
        context: tokens before the continuation, at least one; the source of an encoder-decoder.
        continuation: tokens that are predicted.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]


def shorten(request: ContinuationRequest, context: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Context and continuation, with the context truncated on the left to the model's.

    The last token of the continuation is never read, so that one more token fits.
    """
    if context is None:
        return request.context, request.continuation
    return request.context[-(context + 1 - len(request.continuation)) :], request.continuation


def trees_of(inputs: Sequence[Sequence[int]], most: int) -> list[tuple[list[int], int]]:
    """Sequences in groups that share beginnings, with the number of their different tokens; longer trees first.

    Sequences that share at least half of their tokens are put together up to `most` tokens, others up to
    `MAX_TREE_TOKENS`.
    """
    order = sorted(range(len(inputs)), key=lambda index: list(inputs[index]))
    groups: list[tuple[list[int], int]] = []
    for index in order:
        ids = inputs[index]
        if groups:
            members, size = groups[-1]
            shared = common_length(inputs[members[-1]], ids)
            limit = most if 2 * shared >= len(ids) else MAX_TREE_TOKENS
            if shared and size + len(ids) - shared <= limit:
                groups[-1] = ([*members, index], size + len(ids) - shared)
                continue
        groups.append(([index], len(ids)))
    return sorted(groups, key=lambda group: -group[1])


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens with which both sequences begin."""
    differ = (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differ, min(len(first), len(second)))


def tree_tokens(group: tuple[list[int], int]) -> int:
    """Number of tokens of a group made by `trees_of`."""
    return group[1]


def batches_of(items: Iterable[Any], size: Callable[[Any], int], most: int, padded: bool = False) -> Iterator[Any]:
    """Consecutive items in batches of at most `most` tokens; where they are `padded`, each counts as the longest."""
    batch: list[Any] = []
    total = longest = 0
    for item in items:
        longest, total = max(longest, size(item)), total + size(item)
        cost = longest * (len(batch) + 1) if padded else total
        if batch and cost > most:
            yield batch
            batch, longest, total = [], size(item), size(item)
        batch.append(item)
    if batch:
        yield batch


def rolling_requests(ids: Sequence[int], prefix_token_id: int | None, context: int | None) -> list[ContinuationRequest]:
    """A text as requests whose continuations are all of its tokens, each once.

    The first window starts after the prefix token; each further one has a full context, of which only the tokens that
    were not predicted before are predicted, as in lm-evaluation-harness. Without a prefix token the first token is
    context only.
    """
    if prefix_token_id is None:
        prefix_token_id, ids = (ids[0], ids[1:]) if ids else (0, ids)
    length = len(ids) if context is None else context
    whole = [prefix_token_id, *ids]
    requests = []
    done = 0
    while done < len(ids):
        stop = min(done + length, len(ids))
        # Inputs are the `length` tokens before `stop` in `whole`, of which those from `done` on predict.
        start = max(0, stop - length)
        requests.append(ContinuationRequest(tuple(whole[start : done + 1]), tuple(whole[done + 1 : stop + 1])))
        done = stop
    return requests
