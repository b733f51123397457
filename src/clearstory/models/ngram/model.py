"""NGram: foresees the next token from the longest run of last tokens that it has counted.

What is learnt stands in one table an order, a trie laid flat (see counting.py), with two logarithms a row: that of the
probability, and of the weight a context gives to the next shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Self, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearstory.errors import VocabularyMismatch
from clearstory.models.base import IGNORE_INDEX, TokenSequences, FitProgress, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.counting import CountTable, count_ngrams
from clearstory.models.ngram.lookup import find_keys
from clearstory.models.ngram.smoothing import SmoothedOrder, estimate, smoothing_method
from clearstory.models.ngram.state import NGramState


class OrderTable(nn.Module):
    """The n-grams of one order; R rows, by rising key. Of order 1 there is one for each token, without keys."""

    keys: Tensor  # (R,) row of the beginning in the table one shorter, times V, plus the last token
    logs: Tensor  # (R,) log P(last | those before)
    weights: Tensor  # (R,) as a context: log of what is left to the shorter one; None for the longest
    counts: Tensor | None  # (R,) how often it stands in the text

    def __init__(self, rows: int, keyed: bool, context: bool, counted: bool) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(rows, dtype=torch.long) if keyed else None)
        self.register_buffer("logs", torch.zeros(rows))
        self.register_buffer("weights", torch.zeros(rows) if context else None)
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int32) if counted else None)


class NGram(nn.Module):
    """Counts, smooths, and looks up. Before it has learnt, every token is as likely as any other.

    What it knows after a token is which of its last tokens stand in the tables: a vector of `order` rows, −1 for none.
    Tables are fp32 unless the model is made `double` before it learns; keys and counts are whole numbers in any case.

    >>> from types import SimpleNamespace
    >>> model = NGram(NGramConfig(vocab=3, order=2, smoothing="witten-bell"))
    >>> rows = SimpleNamespace(ids=np.array([0, 1, 0, 1, 2]), starts=np.array([0, 5]), byte_lengths=None)
    >>> _ = list(model.fit(rows))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[0]]), model.init_state())
    >>> model.logits(hidden)[0, 0].exp().tolist()  # P(1 | 0) = (2 + 1 · P(1)) / (2 + 1), P(1) = (2 + 3 / 3) / (5 + 3)
    [0.125, 0.7916..., 0.0833...]
    """

    capabilities = frozenset({Capability.CAUSAL, Capability.COUNT_FITTED, Capability.NGRAM_COUNTS})
    counted = True  # it learns by counting
    stretch = 2**15  # tokens scored at a time: long batches are sorted before they are looked up

    def __init__(self, config: NGramConfig) -> None:
        super().__init__()
        self.vocab = config.vocab
        self.context: int | None = None  # it forgets all but the last few, and never reads those anew
        self.compute_dtype: torch.dtype | None = None  # nothing is multiplied
        self.lay_out(config)
        # Before anything is counted.
        self.table(1).log_probs.fill_(-math.log(self.vocab))

    def lay_out(self, config: NGramConfig) -> None:
        """Tables of the sizes that a config states, empty."""
        self.config = config
        rows = [config.vocab, *config.sizes, *[0] * (config.order - 1 - len(config.sizes))]
        counted = config.counts
        self.grams = nn.ModuleList(
            OrderTable(size, keyed=at > 0, context=at < config.order - 1, counted=counted) for at, size in enumerate(rows)
        )

    def table(self, order: int) -> OrderTable:
        """The n-grams of an order."""
        return cast(OrderTable, self.grams[order - 1])

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.table(1).log_probs.device

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Tables of the sizes that saved ones have: what was counted is as large as its text made it."""
        sizes = [shapes.get(f"grams.{at}.keys", (0,)) for at in range(1, self.config.order)]
        kind = self.table(1).log_probs
        self.lay_out(replace(self.config, sizes=tuple(int(size[0]) for size in sizes) if any(map(any, sizes)) else ()))
        self.to(device=kind.device, dtype=kind.dtype)

    @property
    def rounds(self) -> int:
        """An order a round."""
        return self.config.order

    def check_data(self, rows: TokenSequences) -> None:
        """Raises BadSetting as `count` does, and for a smoothing that is none."""
        c = self.config
        smoothing_method(c)
        with closing(count_ngrams(rows, c.order, c.vocab, c.bos_token_id)) as tables:
            next(tables)

    def fit(self, rows: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Count order by order; the last round smooths. Always from the start: before the last, nothing is kept.

        Raises VocabularyMismatch and BadSetting as `count` does.
        """
        c = self.config
        tables: list[CountTable] = []
        for table in count_ngrams(rows, c.order, c.vocab, c.bos_token_id):
            tables.append(table)
            if len(tables) < c.order:
                yield FitProgress(tokens=len(rows.ids))
        parts, notes = estimate(tables, c)
        self.fill(parts)
        yield FitProgress(tokens=len(rows.ids), note="; ".join(notes) or None)

    def fill(self, parts: Sequence[SmoothedOrder]) -> Self:
        """Tables with these numbers, order by order; itself."""
        kind = self.table(1).log_probs
        self.lay_out(replace(self.config, sizes=tuple(len(part.log_probs) for part in parts[1:])))
        for order, part in enumerate(parts, start=1):
            grams = self.table(order)
            if part.keys is not None:
                grams.keys = torch.from_numpy(part.keys)
            grams.log_probs = torch.from_numpy(part.log_probs).to(kind)
            if grams.log_backoffs is not None and part.log_backoffs is not None:
                grams.log_backoffs = torch.from_numpy(part.log_backoffs).to(kind)
            if grams.counts is not None and part.counts is not None:
                grams.counts = torch.from_numpy(np.minimum(part.counts, 2**31 - 1).astype(np.int32))
        return self.to(kind.device)

    def init_state(self, batch_size: int = 1) -> NGramState:
        """The memory of `batch_size` rows that have read nothing."""
        ids = torch.full((batch_size, self.config.order - 1), -1, device=self.device)
        return NGramState(ids, (0,) * batch_size)

    def forward(self, tokens: TokenBatch, state: NGramState | None = None) -> tuple[Float[Tensor, "B T W"], NGramState | None]:
        """After each token, the row of its last k tokens in table k, for k from 0 to order − 1; −1 where there is none.

        Raises VocabularyMismatch for an id it does not know.
        """
        before = self.init_state(len(tokens.ids)) if state is None else state
        contexts = self.contexts(self.after(before, tokens))
        count = tokens.ids.shape[1]
        # Whole numbers as float64, which holds them exactly.
        rows = [torch.zeros_like(tokens.ids, device=before.ids.device)]
        rows += [each[:, each.shape[1] - count :] for each in contexts]
        hidden = torch.stack(rows, -1).double()
        return hidden, None if state is None else self.remember(before, tokens)

    def after(self, before: NGramState, tokens: TokenBatch) -> Int[Tensor, "B L"]:
        """The last order − 1 ids of each row, and those that come."""
        ids = tokens.ids.to(before.ids.device)
        self.check_ids(ids)
        return torch.cat([before.ids, ids], 1)

    def remember(self, before: NGramState, tokens: TokenBatch) -> NGramState:
        """The state after reading on."""
        ids, reach = torch.cat([before.ids, tokens.ids.to(before.ids.device)], 1), self.config.order - 1
        if tokens.lengths is None:
            new = [tokens.ids.shape[1]] * len(ids)
            last = ids[:, ids.shape[1] - reach :]
        else:
            new = tokens.lengths.tolist()
            last = ids.gather(1, tokens.lengths.to(ids.device)[:, None] + torch.arange(reach, device=ids.device))
        return NGramState(last, tuple(old + more for old, more in zip(before.read, new, strict=True)))

    def reach(self, ids: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """How many tokens, each place's own included, n-grams may look back on: not beyond where a text began."""
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device).expand_as(ids)
        # Nothing was read before the row began, and what begins a text is looked back on itself.
        ends = torch.where(ids < 0, places, 0)
        if self.config.bos_token_id is not None:
            ends = torch.where(ids == self.config.bos_token_id, places - 1, ends)
        return places - ends.cummax(1).values if ids.shape[1] else places

    def contexts(self, ids: Int[Tensor, "B L"]) -> list[Int[Tensor, "B L"]]:
        """For k from 1 to order − 1, the row in table k of the k tokens that end at each place; −1 for none."""
        reach = self.reach(ids)
        rows = self.trace(ids, reach, self.config.order - 1)
        return [each.where(reach >= length, -1) for length, each in enumerate(rows, start=1)]

    def trace(self, ids: Int[Tensor, "B L"], reach: Int[Tensor, "B L"], order: int) -> list[Int[Tensor, "B L"]]:
        """For k up to `order`, the row of the k-gram that ends at each place and lies within what is looked back on."""
        out = [ids][:order]
        for length in range(2, order + 1):
            before = self.before(out[-1].where(reach >= length - 1, -1))
            out.append(self.rows(length, before, ids))
        return out

    @staticmethod
    def before(rows: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """What stood one place earlier; −1 for the first."""
        return torch.cat([torch.full_like(rows[:, :1], -1), rows[:, :-1]], 1)

    def rows(self, order: int, before: Int[Tensor, "*D"], last: Int[Tensor, "*D"]) -> Int[Tensor, "*D"]:
        """The rows of n-grams by the row of their beginning and their last token; −1 where there is none."""
        wanted = torch.where((before >= 0) & (last >= 0), before * self.vocab + last, -1)
        return find_keys(self.table(order).keys, wanted.flatten()).view(wanted.shape)

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Log-probabilities of the next token, only where asked for; they add up to one as they are."""
        contexts = hidden.reshape(-1, hidden.shape[-1]).long()
        logs = self.table(1).log_probs.expand(len(contexts), -1).clone()
        for order in range(2, self.config.order + 1):
            self.spread(order, contexts[:, order - 1], logs)
        return logs.view(*hidden.shape[:-1], self.vocab)

    def spread(self, order: int, contexts: Int[Tensor, "N"], logs: Float[Tensor, "N V"]) -> None:
        """Let the n-grams of an order have their say: those seen after each context, and its weight for all others."""
        grams = self.table(order)
        at = (contexts >= 0).nonzero()[:, 0]
        chosen = contexts[at]
        weights = self.table(order - 1).log_backoffs[chosen]
        logs[at] = self.left(weights[:, None], logs[at])
        # What follows a context stands together.
        first = torch.searchsorted(grams.keys, chosen * self.vocab)
        sizes = torch.searchsorted(grams.keys, (chosen + 1) * self.vocab) - first
        total = int(sizes.sum())
        shift = torch.repeat_interleave(first - sizes.cumsum(0) + sizes, sizes, output_size=total)
        rows = torch.arange(total, device=shift.device) + shift
        logs[torch.repeat_interleave(at, sizes, output_size=total), grams.keys[rows] % self.vocab] = grams.log_probs[rows]

    def left(self, weights: Tensor, shorter: Tensor) -> Tensor:
        """Log P of what a context was not seen with, from its weight and log P after the shorter one."""
        if self.config.smoothing == "laplace":  # the weight is the probability itself; 0 where nothing follows
            return torch.where(weights < 0, weights, shorter)
        return shorter + weights

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: NGramState | None = None
    ) -> tuple[Float[Tensor, "B T"], NGramState | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE_INDEX; looked up, token by token."""
        before = self.init_state(len(tokens.ids)) if state is None else state
        ids = self.after(before, tokens)
        wanted = targets.to(ids.device)
        scored = wanted != IGNORE_INDEX
        count = wanted.shape[1]
        wanted = wanted.where(scored, 0)
        self.check_ids(wanted)
        contexts, found = self.matches(ids, wanted, scored)
        logs = self.table(1).log_probs[wanted]
        for order, (context, rows) in enumerate(zip(contexts, found, strict=True), start=2):
            weights = take_rows(self.table(order - 1).log_backoffs, context[:, -count:], 0.0)
            logs = self.left(weights, logs)
            logs = torch.where(rows >= 0, take_rows(self.table(order).log_probs, rows, 0.0), logs)
        nats = torch.where(scored, -logs, 0)
        return nats, None if state is None else self.remember(before, tokens)

    def matches(
        self, ids: Int[Tensor, "B L"], wanted: Int[Tensor, "B T"], scored: Bool[Tensor, "B T"]
    ) -> tuple[list[Int[Tensor, "B L"]], list[Int[Tensor, "B T"]]]:
        """For orders from 2: the row of each context, and of the n-gram that it makes with what is wanted after it."""
        count, order = wanted.shape[1], self.config.order
        if not count or bool(((wanted[:, :-1] != ids[:, ids.shape[1] - count + 1 :]) & scored[:, :-1]).any()):
            contexts = self.contexts(ids)
            return contexts, [
                self.rows(length, context[:, -count:], wanted) for length, context in enumerate(contexts, start=2)
            ]
        # What is wanted is what is read next: then each n-gram that is found is the next one's beginning.
        ids = torch.cat([ids, wanted[:, -1:].where(scored[:, -1:], -1)], 1)
        reach = self.reach(ids)
        rows = self.trace(ids, reach, order)
        contexts = [each.where(reach >= length, -1)[:, :-1] for length, each in enumerate(rows[:-1], start=1)]
        return contexts, [each[:, -count:] for each in rows[1:]]

    def check_ids(self, ids: Tensor) -> None:
        """Refuse what would otherwise fail far away, or not at all."""
        if ids.numel() and not ids.is_meta and not 0 <= (worst := int(ids.max())) < self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer saved beside the model"
            )


def take_rows(values: Float[Tensor, "R"], rows: Int[Tensor, "*D"], missing: float) -> Float[Tensor, "*D"]:
    """The values of these rows, and `missing` where a row is −1."""
    if not len(values):
        return values.new_full(rows.shape, missing)
    return values[rows.clamp(min=0)].where(rows >= 0, missing)
