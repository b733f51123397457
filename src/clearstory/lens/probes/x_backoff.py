"""Back-off: which of its tables an n-gram model answered from, token by token, and what it passed on the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from clearstory.errors import BadInput
from clearstory.lens.probes.next_token import TokenizerProtocol
from clearstory.lens.probes.surprisal import format_probability
from clearstory.lens.views import Cell, Table
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.models.prompts import bos_or_eos_token_id


def backoff(model: Any, tokenizer: TokenizerProtocol, text: str) -> Table:
    """For every token of a text: the order of the n-gram that answered, how often that was counted, the probability,
    what the n-gram begins with, and the longer orders whose contexts had been seen, but not with this token: each with
    the share that its context leaves to shorter ones.

    A count is None where the model keeps none. Raises BadInput for a text without a token to foresee.
    """
    ids = tokenizer.encode(text)
    begin = bos_or_eos_token_id(tokenizer)
    row = ids if begin is None else [begin, *ids]
    if len(row) < 2:
        raise BadInput("the text is too short: there is no token to foresee; give more of it")
    inputs, targets = TokenBatch.from_sequences([row[:-1]]), torch.tensor([row[1:]])
    with inference_mode(model):
        contexts = model.forward(inputs)[0][0].long().tolist()
        nats = model.token_nll(inputs, targets)[0][0].tolist()
        told = [answer(model, known, id) for known, id in zip(contexts, row[1:], strict=True)]
    rows: list[tuple[Cell, ...]] = []
    for place, (order, count, passed) in enumerate(told):
        after = " ".join(tokenizer.display_token(id) for id in row[place + 2 - order : place + 1])
        left = ", ".join(f"{length + 1}: {format_probability(part)}" for length, part in passed)
        rows.append((tokenizer.display_token(row[place + 1]), order, count, math.exp(-nats[place]), after, left))
    return Table(
        title="Back-off: which n-grams answered",
        columns=("token", "order", "count", "probability", "after", "left by longer ones"),
        rows=tuple(rows),
        caption=look([order for order, _, _ in told], model.config.order),
    )


def answer(model: Any, known: Sequence[int], id: int) -> tuple[int, int | None, list[tuple[int, float]]]:
    """The order that answered for a token, its count, and the lengths of contexts passed with the share each leaves.

    `known` (order,) is the model's row of each context, by its length.
    """
    passed: list[tuple[int, float]] = []
    for length in range(len(known) - 1, 0, -1):
        if known[length] < 0:
            continue
        row = int(model.rows(length + 1, torch.tensor([known[length]]), torch.tensor([id]))[0])
        if row >= 0:
            return length + 1, counted(model, length + 1, row), passed
        weight = float(model.table(length).log_backoffs[known[length]])
        if model.config.smoothing == "laplace" and weight < 0:  # unseen as it is, it is counted as if once
            return length + 1, 0, passed
        passed.append((length, math.exp(weight)))
    return 1, counted(model, 1, id), passed


def counted(model: Any, order: int, row: int) -> int | None:
    """How often an n-gram stood in the text, where that was kept."""
    counts = model.table(order).counts
    return None if counts is None else int(counts[row])


def look(orders: Sequence[int], most: int) -> str:
    """What answered, in a sentence."""
    times = Counter(orders)
    parts = [f"{times[order]:,} from order {order}" for order in sorted(times, reverse=True)]
    return f"Of {len(orders):,} tokens, {', '.join(parts)}; the longest n-grams have {most}."
