"""N-gram counts: the counts of an n-gram model after a text, and the order used for each token's probability."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.passage import start_before
from clearstory.lens.views import Cell, Report, Table
from clearstory.lens.views.formatting import format_probability, text_ending
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.ngram.model import NGram
from clearstory.models.prompts import PromptOptions, encode_prompt, prepare_prompt
from clearstory.text.tokenizers import Tokenizer

INTERPOLATED = ("kneser-ney", "witten-bell", "none")
"""Smoothing methods under which P(w | h) is a discounted share plus the backoff weight times P(w | shorter h)."""


@dataclass(frozen=True)
class SeenToken:
    """A token that was counted after a context.

    Args:
        id: the token.
        count: number of occurrences; None if counts are not stored.
        probability: smoothed probability after this context.
        own_share: the part of the probability from its own count; None for a smoothing method without such parts.
    """

    id: int
    count: int | None
    probability: float
    own_share: float | None


@dataclass(frozen=True)
class SeenContext:
    """A context that occurs in the training text: its tokens, its backoff weight, and the tokens after it, most
    frequent first.
    """

    order: int
    ids: tuple[int, ...]
    backoff: float | None
    seen: tuple[SeenToken, ...]

    @property
    def total(self) -> int | None:
        """Number of occurrences of the context with a token after it."""
        counts = [each.count for each in self.seen]
        return None if None in counts else sum(count for count in counts if count is not None)


def ngram_counts(
    model: NGram, tokenizer: Tokenizer, text: str, *, top: int = 8, prompt: PromptOptions = PromptOptions()
) -> Report:
    """Counts after the end of a text: its contexts, the longest first, and after each the `top` most frequent tokens
    with counts, discounts, own shares and probabilities.

    `discount` is what smoothing subtracts from a count, shown for the longest n-grams without pruning only: shorter
    n-grams are smoothed by the number of different tokens before them. Raises BadInput for an empty text.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    reader = cast(LanguageModel, model)
    ids = prepare_prompt(reader, encode_prompt(reader, tokenizer, text, prompt).ids)
    found = matching_contexts(model, ids)
    final = {each.id: each.probability for part in reversed(found) for each in part.seen}
    contexts: list[tuple[Cell, ...]] = [
        (
            part.order,
            context_text(tokenizer, part),
            part.total,
            sum(each.count != 0 for each in part.seen),
            part.backoff,
        )
        for part in found
    ]
    rows = [row for part in found for row in count_rows(model, tokenizer, part, final, top)]
    most = max((len(part.seen) for part in found), default=0)
    return Report(
        title=f"Counts after “{text_ending(text)}”",
        panels=(
            Table(
                title="Contexts found in the tables",
                columns=("order", "context", "count", "distinct tokens", "backoff weight"),
                rows=tuple(contexts),
            ),
            Table(
                title=f"The {min(top, most):,} most frequent tokens after each",
                columns=(
                    "order",
                    "context",
                    "token",
                    "count",
                    "discount",
                    "own share",
                    "probability",
                    "final probability",
                ),
                rows=tuple(rows),
                bar="probability",
                caption=longest_context_caption(found[0], model.config.order),
            ),
        ),
    )


def context_text(tokenizer: Tokenizer, context: SeenContext) -> str:
    """The tokens of a context as display text."""
    return " ".join(map(tokenizer.display_token, context.ids)) or "(nothing)"


def count_rows(
    model: NGram, tokenizer: Tokenizer, context: SeenContext, final: dict[int, float], top: int
) -> list[tuple[Cell, ...]]:
    """A table row for each of the `top` most frequent tokens after a context; `final` are their final probabilities."""
    c = model.config
    exact = context.order == c.order and not c.prune and c.smoothing in ("kneser-ney", "witten-bell")
    rows: list[tuple[Cell, ...]] = []
    for each in context.seen[:top]:
        discount = None
        if exact and each.own_share is not None and each.count is not None and context.total is not None:
            discount = each.count - each.own_share * context.total
        token = tokenizer.display_token(each.id)
        where = (context.order, context_text(tokenizer, context))
        rows.append((*where, token, each.count, discount, each.own_share, each.probability, final[each.id]))
    return rows


def matching_contexts(model: NGram, ids: list[int]) -> list[SeenContext]:
    """The contexts at the end of `ids` that are in the tables, the longest first, the empty one last."""
    found: list[SeenContext] = []
    with inference_mode(model):
        context_rows = model.forward(TokenBatch.from_sequences([ids]))[0][0, -1].long().tolist()
        shorter = torch.zeros_like(model.table(1).log_probs)
        for length, context in enumerate(context_rows):
            if context < 0:
                continue
            table = model.table(length + 1)
            backoff = model.table(length).log_backoffs[context] if length else None
            log_probs = shorter if backoff is None else model.back_off(backoff, shorter)
            rows = range(model.vocab) if backoff is None else rows_after(model, length + 1, context)
            tokens = list(rows) if backoff is None else (table.keys[rows.start : rows.stop] % model.vocab).tolist()
            log_probs[tokens] = table.log_probs[rows.start : rows.stop]
            own_share: list[float] | list[None] = [None] * len(tokens)
            if backoff is not None and model.config.smoothing in INTERPOLATED:
                own_share = (log_probs.exp() - (backoff + shorter).exp())[tokens].clamp_min(0).tolist()
            values = zip(tokens, rows, log_probs[tokens].exp().tolist(), own_share, strict=True)
            seen = [
                SeenToken(id, ngram_count(model, length + 1, row), probability, part)
                for id, row, probability, part in values
            ]
            seen.sort(key=lambda each: (-(each.count or 0), -each.probability, each.id))
            context_ids = tuple(ids[len(ids) - length :])
            weight = None if backoff is None else float(backoff.exp())
            found.append(SeenContext(length + 1, context_ids, weight, tuple(seen)))
            shorter = log_probs
    return found[::-1]


def rows_after(model: NGram, order: int, context: int) -> range:
    """The rows of the n-grams that begin with a context; they are contiguous."""
    keys = model.table(order).keys
    bounds = torch.tensor([context * model.vocab, (context + 1) * model.vocab], device=keys.device)
    first, last = torch.searchsorted(keys, bounds).tolist()
    return range(first, last)


def ngram_count(model: NGram, order: int, row: int) -> int | None:
    """Number of occurrences of an n-gram in the training text, where counts are stored."""
    counts = model.table(order).counts
    return None if counts is None else int(counts[row])


def longest_context_caption(longest: SeenContext, order: int) -> str:
    """The length of the longest context found, and its backoff weight."""
    length = len(longest.ids)
    if not length:
        return "No context of the text is in the tables: the probabilities are those of single tokens."
    words = f"the last {length:,} tokens" if length > 1 else "the last token"
    words += ", the maximum" if length == order - 1 else ""
    text = f"The longest context found is {words}, followed by {len(longest.seen):,} different tokens"
    return f"{text}; its backoff weight is {longest.backoff or 0:.0%}."


def backoff(model: NGram, tokenizer: Tokenizer, text: str, *, prompt: PromptOptions = PromptOptions()) -> Table:
    """For every token of a text: the order of the n-gram that its probability comes from, that n-gram's count, the
    probability, the context, and the backoff weights of longer contexts that were counted without this token.

    A count is None if the model stores none. Raises BadInput for a text of fewer than two tokens.
    """
    encoded = encode_prompt(cast(LanguageModel, model), tokenizer, text, prompt)
    row = [*start_before(tokenizer, encoded), *encoded.ids]
    if len(row) < 2:
        raise BadInput("the text is too short: there is no token to predict; give a longer text")
    inputs, targets = TokenBatch.from_sequences([row[:-1]]), torch.tensor([row[1:]])
    with inference_mode(model):
        contexts = model.forward(inputs)[0][0].long().tolist()
        nats = model.token_nll(inputs, targets)[0][0].tolist()
        orders = [find_order(model, context_rows, id) for context_rows, id in zip(contexts, row[1:], strict=True)]
    rows: list[tuple[Cell, ...]] = []
    for index, (order, count, skipped) in enumerate(orders):
        context = " ".join(tokenizer.display_token(id) for id in row[index + 2 - order : index + 1])
        weights = ", ".join(f"{length + 1}: {format_probability(weight)}" for length, weight in skipped)
        rows.append((tokenizer.display_token(row[index + 1]), order, count, math.exp(-nats[index]), context, weights))
    return Table(
        title="Backoff: the order of the n-gram that each probability comes from",
        columns=("token", "order", "count", "probability", "context", "backoff weights of longer contexts"),
        rows=tuple(rows),
        caption=backoff_caption([order for order, _, _ in orders], model.config.order),
    )


def find_order(model: NGram, context_rows: Sequence[int], id: int) -> tuple[int, int | None, list[tuple[int, float]]]:
    """The order that a token's probability comes from, its count, and the skipped context lengths with backoff weights.

    `context_rows` (order,) are the rows of each context in the tables, by its length; -1 for none.
    """
    skipped: list[tuple[int, float]] = []
    for length in range(len(context_rows) - 1, 0, -1):
        if context_rows[length] < 0:
            continue
        row = int(model.lookup().find_rows(length + 1, np.array([context_rows[length]]), np.array([id]))[0])
        if row >= 0:
            return length + 1, ngram_count(model, length + 1, row), skipped
        log_backoff = float(model.table(length).log_backoffs[context_rows[length]])
        if model.config.smoothing == "laplace" and log_backoff < 0:  # an unseen n-gram counts as one
            return length + 1, 0, skipped
        skipped.append((length, math.exp(log_backoff)))
    return 1, ngram_count(model, 1, id), skipped


def backoff_caption(orders: Sequence[int], most: int) -> str:
    """The number of tokens of each order."""
    counts = Counter(orders)
    parts = [f"{counts[order]:,} from order {order}" for order in sorted(counts, reverse=True)]
    return f"Of {len(orders):,} tokens, {', '.join(parts)}; the longest n-grams have {most} tokens."
