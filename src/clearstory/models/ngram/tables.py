"""NGramTables: the tables of an n-gram model and their look-up, in numpy: a text is scored without importing torch.

Each order has one table, a trie laid flat (see counting.py), with two logarithms a row: the probability of the last
token given those before, and the backoff weight of the row as a context. `NGram` is the same model as a torch module.

Letters in shapes: B sequences, T new tokens, L tokens with those before, C = order − 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import VocabularyMismatch
from clearstory.metrics import IGNORE_INDEX
from clearstory.models.capabilities import Capability
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.estimation import Logs, SmoothedOrder
from clearstory.models.ngram.lookup import find_keys
from clearstory.models.ngram.sorted_runs import Int64s

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LastIds:
    """State of an n-gram model: the last order − 1 ids of each sequence, (B, C); −1 where it is shorter."""

    ids: Int64s

    def select(self, rows: Sequence[int]) -> LastIds:
        """Those of these sequences, in this order."""
        return replace(self, ids=self.ids[np.asarray(rows, np.int64)])

    def detach(self) -> LastIds:
        """The state itself: ids have no gradients."""
        return self


@dataclass(frozen=True, eq=False)
class NGramTables:
    """The tables of an n-gram model.

    Args:
        config: its config.
        keys: for orders from 2, (R,) the keys of its n-grams, rising.
        log_probs: for orders from 1, (R,) log P(last token | those before).
        log_backoffs: for orders up to the longest but one, (R,) log backoff weights.
    """

    config: NGramConfig
    keys: Sequence[Int64s]
    log_probs: Sequence[Logs]
    log_backoffs: Sequence[Logs]

    capabilities = frozenset({Capability.CAUSAL, Capability.COUNT_FITTED, Capability.NGRAM_COUNTS})
    context = None  # it uses the last few tokens only, at no cost for the others
    chunk_tokens = 2**15  # tokens scored at a time: long batches are sorted before they are looked up

    @classmethod
    def from_orders(cls, config: NGramConfig, orders: Sequence[SmoothedOrder]) -> NGramTables:
        """The tables of smoothed orders, with logarithms in float32."""
        return cls(
            config=config,
            keys=[order.keys for order in orders if order.keys is not None],
            log_probs=[order.log_probs.astype(np.float32) for order in orders],
            log_backoffs=[order.log_backoffs.astype(np.float32) for order in orders if order.log_backoffs is not None],
        )

    @property
    def vocab(self) -> int:
        """The vocabulary size in tokens."""
        return self.config.vocab

    def init_state(self, batch_size: int = 1) -> LastIds:
        """The state of `batch_size` empty sequences."""
        return LastIds(np.full((batch_size, self.config.order - 1), -1))

    def with_history(self, state: LastIds, ids: Int64s) -> Int64s:
        """The last order − 1 ids of each sequence, followed by its new ones, (B, L)."""
        self.check_ids(ids)
        return np.concatenate([state.ids, ids], 1)

    def next_state(self, state: LastIds, ids: Int64s, lengths: Int64s | None) -> LastIds:
        """The state after new tokens (B, T), of which only the first `lengths` (B,) are no padding."""
        everything, reach = np.concatenate([state.ids, ids], 1), self.config.order - 1
        if lengths is None:
            return LastIds(everything[:, everything.shape[1] - reach :])
        return LastIds(np.take_along_axis(everything, lengths[:, None] + np.arange(reach), 1))

    def usable_history(self, ids: Int64s) -> Int64s:
        """How many tokens, each position's own included, an n-gram ending there may span: not past a text's start."""
        positions = np.broadcast_to(np.arange(1, ids.shape[1] + 1), ids.shape)
        # Nothing precedes the sequence; the token that starts a text belongs to the n-grams after it.
        ends = np.where(ids < 0, positions, 0)
        if self.config.bos_token_id is not None:
            ends = np.where(ids == self.config.bos_token_id, positions - 1, ends)
        return np.asarray(positions - np.maximum.accumulate(ends, 1))

    def context_rows(self, ids: Int64s) -> list[Int64s]:
        """For k from 1 to order − 1, the row in table k of the k tokens that end at each position; −1 for none."""
        history = self.usable_history(ids)
        rows = self.ngram_rows(ids, history, self.config.order - 1)
        return [np.where(history >= length, each, -1) for length, each in enumerate(rows, start=1)]

    def ngram_rows(self, ids: Int64s, history: Int64s, order: int) -> list[Int64s]:
        """For k up to `order`, the row of the k-gram that ends at each position, within the usable history."""
        out = [ids][:order]
        for length in range(2, order + 1):
            before = shifted(np.where(history >= length - 1, out[-1], -1))
            out.append(self.find_rows(length, before, ids))
        return out

    def find_rows(self, order: int, before: Int64s, last: Int64s) -> Int64s:
        """Rows of n-grams, by the row of their beginning and their last token; −1 where there is none."""
        wanted = np.where((before >= 0) & (last >= 0), before * self.vocab + last, -1)
        return find_keys(self.keys[order - 2], wanted.ravel()).reshape(wanted.shape)

    def token_nll(self, ids: Int64s, lengths: Int64s | None, targets: Int64s, state: LastIds) -> tuple[Logs, LastIds]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX. Looked up, not summed.

        `ids` (B, T) are read after `state`; `lengths` (B,) of them are no padding. Returns the state after them too.
        """
        known = self.with_history(state, ids)
        scored = targets != IGNORE_INDEX
        count = targets.shape[1]
        wanted = np.where(scored, targets, 0)
        self.check_ids(wanted)
        contexts, found = self.find_matches(known, wanted, scored)
        log_probs: Any = self.log_probs[0][wanted]
        for order, (context, rows) in enumerate(zip(contexts, found, strict=True), start=2):
            log_backoffs = take_rows(self.log_backoffs[order - 2], context[:, -count:])
            log_probs = self.back_off(log_backoffs, log_probs)
            log_probs = np.where(rows >= 0, take_rows(self.log_probs[order - 1], rows), log_probs)
        zero = log_probs.dtype.type(0)
        return np.where(scored, -log_probs, zero), self.next_state(state, ids, lengths)

    def back_off(self, log_backoffs: Logs, shorter: Logs) -> Logs:
        """Log-probability of tokens unseen after a context, from its backoff weight and the shorter context's."""
        if self.config.smoothing == "laplace":  # the weight is the probability itself; 0 where nothing follows
            return np.where(log_backoffs < 0, log_backoffs, shorter)
        return shorter + log_backoffs

    def find_matches(self, ids: Int64s, wanted: Int64s, scored: Flags) -> tuple[list[Int64s], list[Int64s]]:
        """For orders from 2: the row of each context, (B, L), and of the n-gram it makes with its target, (B, T)."""
        count, order = wanted.shape[1], self.config.order
        if not count or bool(((wanted[:, :-1] != ids[:, ids.shape[1] - count + 1 :]) & scored[:, :-1]).any()):
            contexts = self.context_rows(ids)
            return contexts, [
                self.find_rows(length, context[:, -count:], wanted) for length, context in enumerate(contexts, start=2)
            ]
        # Each target is the next token read: then each n-gram that is found is the next one's beginning.
        ids = np.concatenate([ids, np.where(scored[:, -1:], wanted[:, -1:], -1)], 1)
        history = self.usable_history(ids)
        rows = self.ngram_rows(ids, history, order)
        contexts = [np.where(history >= length, each, -1)[:, :-1] for length, each in enumerate(rows[:-1], start=1)]
        return contexts, [each[:, -count:] for each in rows[1:]]

    def check_ids(self, ids: Int64s) -> None:
        """Raises VocabularyMismatch for an id outside the vocabulary."""
        if ids.size and not 0 <= (worst := int(ids.max())) < self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer that was saved with the model"
            )


def shifted(rows: Int64s) -> Int64s:
    """Each value moved one position to the right; −1 at the first."""
    return np.concatenate([np.full_like(rows[:, :1], -1), rows[:, :-1]], 1)


def take_rows(values: Logs, rows: Int64s) -> Logs:
    """The values of these rows; 0 where a row is −1."""
    zero = values.dtype.type(0)
    if not len(values):
        return np.full(rows.shape, zero)
    return np.where(rows >= 0, values[np.maximum(rows, 0)], zero)
