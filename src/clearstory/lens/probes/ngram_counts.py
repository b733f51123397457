"""Counts: what an n-gram model has seen after a text, order by order, and what its smoothing makes of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.x_backoff import counted
from clearstory.lens.probes.next_token import text_ending
from clearstory.lens.views import Cell, Table, Report
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.models.prompts import bos_or_eos_token_id, prepare_prompt
from clearstory.text.tokenizers import Tokenizer

INTERPOLATED = ("kneser-ney", "witten-bell", "none")
"""Smoothings under which P(w | h) is a share of its own, and what the context leaves times P after the shorter one."""


@dataclass(frozen=True)
class SeenToken:
    """A token that has stood after a context.

    Args:
        id: the token.
        count: how often it did; None where counts are not kept.
        probability: of it after this context, smoothed.
        own: the part of the probability that its own count gives; None where the smoothing has no such parts.
    """

    id: int
    count: int | None
    probability: float
    own: float | None


@dataclass(frozen=True)
class SeenContext:
    """A context that has been seen: its tokens, what it leaves to the shorter one, what stood after it, often first."""

    order: int
    ids: tuple[int, ...]
    left: float | None
    seen: tuple[SeenToken, ...]

    @property
    def total(self) -> int | None:
        """How often anything stood after it."""
        counts = [each.count for each in self.seen]
        return None if None in counts else sum(count for count in counts if count is not None)


def matching_contexts(model: Any, ids: list[int]) -> list[SeenContext]:
    """The contexts at the end of `ids` that the model has seen, the longest first, the empty one last."""
    found: list[SeenContext] = []
    with inference_mode(model):
        known = model.forward(TokenBatch.from_sequences([ids]))[0][0, -1].long().tolist()
        below = torch.zeros_like(model.table(1).log_probs)
        for length, context in enumerate(known):
            if context < 0:
                continue
            table = model.table(length + 1)
            left = model.table(length).log_backoffs[context] if length else None
            after = below if left is None else model.left(left, below)
            rows = range(model.vocab) if left is None else after_rows(model, length + 1, context)
            tokens = list(rows) if left is None else (table.keys[rows.start : rows.stop] % model.vocab).tolist()
            after[tokens] = table.log_probs[rows.start : rows.stop]
            own: list[float] | list[None] = [None] * len(tokens)
            if left is not None and model.config.smoothing in INTERPOLATED:
                own = (after.exp() - (left + below).exp())[tokens].clamp_min(0).tolist()
            numbers = zip(tokens, rows, after[tokens].exp().tolist(), own, strict=True)
            seen = [SeenToken(id, counted(model, length + 1, row), chance, part) for id, row, chance, part in numbers]
            seen.sort(key=lambda each: (-(each.count or 0), -each.probability, each.id))
            spoken = tuple(ids[len(ids) - length :])
            found.append(SeenContext(length + 1, spoken, None if left is None else float(left.exp()), tuple(seen)))
            below = after
    return found[::-1]


def after_rows(model: Any, order: int, context: int) -> range:
    """The rows of what follows a context: they stand together."""
    keys = model.table(order).keys
    ends = torch.tensor([context * model.vocab, (context + 1) * model.vocab], device=keys.device)
    first, last = torch.searchsorted(keys, ends).tolist()
    return range(first, last)


def ngram_counts(model: Any, tokenizer: Tokenizer, text: str, *, top: int = 8) -> Report:
    """What has been counted after the end of a text: its contexts, the longest first, and after each the `top` tokens
    with their counts, the share of probability that these give, and the probability.

    `discount` is what smoothing took from a count, told where the count is what it works with: of the longest n-grams,
    none of which were pruned; shorter ones are weighed by how many tokens they follow. Raises BadInput for a text
    without tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    ids = prepare_prompt(model, tokenizer.encode(text), bos_or_eos_token_id(tokenizer))
    if not ids:
        raise BadInput("the text is empty; give a few words to look at")
    found, c = matching_contexts(model, ids), model.config
    final = {each.id: each.probability for part in reversed(found) for each in part.seen}
    contexts: list[tuple[Cell, ...]] = []
    rows: list[tuple[Cell, ...]] = []
    for part in found:
        after = " ".join(map(tokenizer.display_token, part.ids)) or "(nothing)"
        followed = sum(each.count != 0 for each in part.seen)
        contexts.append((part.order, after, part.total, followed, part.left))
        exact = part.order == c.order and not c.prune and c.smoothing in ("kneser-ney", "witten-bell")
        for each in part.seen[:top]:
            lost = None
            if exact and each.own is not None and each.count is not None and part.total is not None:
                lost = each.count - each.own * part.total
            rows.append(
                (
                    part.order,
                    after,
                    tokenizer.display_token(each.id),
                    each.count,
                    lost,
                    each.own,
                    each.probability,
                    final[each.id],
                )
            )
    longest = found[0]
    more = max((len(part.seen) for part in found), default=0)
    return Report(
        title=f"Counts after “{text_ending(text)}”",
        panels=(
            Table(
                title="Its endings that have been seen",
                columns=("order", "after", "times", "different tokens", "left to the shorter"),
                rows=tuple(contexts),
            ),
            Table(
                title=f"What stood there, the {min(top, more):,} most frequent of each",
                columns=("order", "after", "token", "count", "discount", "own share", "probability", "answer"),
                rows=tuple(rows),
                bar="probability",
                caption=look(longest, c.order),
            ),
        ),
    )


def look(longest: SeenContext, most: int) -> str:
    """How much of the text's end has been seen, in words."""
    length = len(longest.ids)
    if not length:
        return "No token of the text's end has been seen followed by anything: the answer is the single tokens'."
    words = f"the last {length:,} tokens" if length > 1 else "the last token"
    words += ", as many as it ever does" if length == most - 1 else ""
    said = f"The answer looks back on {words}, after which {len(longest.seen):,} different tokens have stood"
    return f"{said}; {longest.left or 0:.0%} of the probability is left to shorter contexts."
