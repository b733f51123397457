"""Encoding of a context and its continuation: the ids of both, split at the end of the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]
"""From a text to its ids, with the special tokens that a tokenizer adds around a text, or without them."""


def encode_continuation(
    context: str, continuation: str, encode: Encode, encode_bare: Encode, prefix_token_id: int | None
) -> tuple[list[int], list[int]]:
    """The ids of a context and of its continuation, as lm-evaluation-harness divides them.

    Both are encoded together, so that a word at the seam has its usual tokens; the continuation is what exceeds the
    context's own ids, and white space at the context's end belongs to it. An empty context is `prefix_token_id`, unless
    the continuation starts with that token; without such a token, the first token of the continuation is its context.

    >>> encode_continuation("a b ", "c", str.split, str.split, None)
    (['a', 'b'], ['c'])
    """
    if not context:
        ids = list(encode_bare(continuation))
        if prefix_token_id is None or ids[:1] == [prefix_token_id]:
            return ids[:1], ids[1:]
        return [prefix_token_id], ids
    stripped = context.rstrip()
    if not stripped:  # white space alone cannot be moved: nothing would be before it
        stripped, moved = context, ""
    else:
        moved = context[len(stripped) :]
    first, both = list(encode(stripped)), list(encode(stripped + moved + continuation))
    return first, both[len(first) :]
