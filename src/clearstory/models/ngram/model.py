"""NGram: an n-gram language model with backoff.

The module over `NGramTables`, which looks n-grams up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.base import FitProgress, TokenBatch, TokenSequences
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.counting import SORT_MEMORY_MB, chunk_tokens, count_ngrams
from clearstory.models.ngram.estimation import SmoothedOrder, estimate
from clearstory.models.ngram.smoothing import smoothing_method
from clearstory.models.ngram.sorted_runs import CountTable
from clearstory.models.ngram.state import NGramState
from clearstory.models.ngram.tables import NGramTables


class OrderTable(nn.Module):
    """The n-grams of one order; R rows by rising key. Order 1 has a row for each token and no keys."""

    keys: Tensor  # (R,) row of the n-gram's beginning in the next shorter table, times V, plus its last token
    log_probs: Tensor  # (R,) log P(last token | those before)
    log_backoffs: Tensor  # (R,) log backoff weight of the row as a context; None for the longest order
    counts: Tensor | None  # (R,) occurrences in the text

    def __init__(self, rows: int, keyed: bool, context: bool, counted: bool) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(rows, dtype=torch.long) if keyed else None)
        self.register_buffer("log_probs", torch.zeros(rows))
        self.register_buffer("log_backoffs", torch.zeros(rows) if context else None)
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int32) if counted else None)


class NGram(nn.Module):
    """An n-gram model: counts, smooths and looks up. Before it is fitted, all tokens are equally likely.

    Its hidden state after a token says which of the last tokens the tables hold: a vector of `order` row numbers, −1
    for none. Tables are fp32 unless the model is made `double` before fitting; keys and counts are always integers.

    >>> from types import SimpleNamespace
    >>> model = NGram(NGramConfig(vocab=3, order=2, smoothing="witten-bell"))
    >>> dataset = SimpleNamespace(ids=np.array([0, 1, 0, 1, 2]), starts=np.array([0, 5]), byte_lengths=None)
    >>> _ = list(model.fit(dataset))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[0]]), model.init_state())
    >>> model.logits(hidden)[0, 0].exp().tolist()  # P(1 | 0) = (2 + 1 · P(1)) / (2 + 1), P(1) = (2 + 3 / 3) / (5 + 3)
    [0.125, 0.7916..., 0.0833...]
    """

    capabilities = NGramTables.capabilities
    chunk_tokens = NGramTables.chunk_tokens

    def __init__(self, config: NGramConfig) -> None:
        super().__init__()
        self.vocab = config.vocab
        self.context: int | None = None  # it uses the last few tokens only, at no cost for the others
        self.compute_dtype: torch.dtype | None = None  # ignored: nothing is multiplied
        self.sort_memory_mb = SORT_MEMORY_MB
        self.copied: tuple[Any, NGramTables] | None = None  # of tables on another device
        self.allocate(config)
        self.table(1).log_probs.fill_(-math.log(self.vocab))

    def allocate(self, config: NGramConfig) -> None:
        """Make empty tables of the sizes that a config states."""
        self.config = config
        rows = [config.vocab, *config.sizes, *[0] * (config.order - 1 - len(config.sizes))]
        counted = config.counts
        self.tables = nn.ModuleList(
            OrderTable(size, keyed=at > 0, context=at < config.order - 1, counted=counted)
            for at, size in enumerate(rows)
        )

    def table(self, order: int) -> OrderTable:
        """The table of an order, from 1."""
        return cast(OrderTable, self.tables[order - 1])

    @property
    def device(self) -> torch.device:
        """The device of the tables."""
        return self.table(1).log_probs.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the logarithms."""
        return self.table(1).log_probs.dtype

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make tables of the sizes of saved ones, given the shape of each saved tensor."""
        sizes = [shapes.get(f"tables.{at}.keys", (0,)) for at in range(1, self.config.order)]
        like = self.table(1).log_probs
        self.allocate(replace(self.config, sizes=tuple(int(size[0]) for size in sizes) if any(map(any, sizes)) else ()))
        self.to(device=like.device, dtype=like.dtype)

    @property
    def rounds(self) -> int:
        """One round for each order."""
        return self.config.order

    def check_data(self, dataset: TokenSequences) -> None:
        """Raises BadSetting as `count_ngrams` does, and for a smoothing that cannot be fitted."""
        c = self.config
        smoothing_method(c)
        with closing(count_ngrams(dataset, c.order, c.vocab, c.bos_token_id)) as tables:
            next(tables)

    def fit(self, dataset: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Count order by order and smooth in the last round. Always from the start: earlier rounds leave nothing.

        Raises VocabularyMismatch and BadSetting as `count_ngrams` does.
        """
        c = self.config
        tables: list[CountTable] = []
        counting = count_ngrams(dataset, c.order, c.vocab, c.bos_token_id, chunk_tokens(self.sort_memory_mb))
        with closing(counting):
            for table in counting:
                tables.append(table)
                if len(tables) < c.order:
                    yield FitProgress(tokens=len(dataset.ids))
                else:  # before the files of the counts are removed
                    orders, notes = estimate(tables, c, np.float64 if self.dtype == torch.float64 else np.float32)
        self.fill(orders)
        yield FitProgress(tokens=len(dataset.ids), note="; ".join(notes) or None)

    def fill(self, orders: Sequence[SmoothedOrder]) -> Self:
        """Set the tables to these numbers, order by order. Returns the model."""
        like = self.table(1).log_probs
        with torch.device("meta"):  # every table is replaced
            self.allocate(replace(self.config, sizes=tuple(len(each.log_probs) for each in orders[1:])))
        for order, smoothed in enumerate(orders, start=1):
            table = self.table(order)
            if smoothed.keys is not None:
                table.keys = torch.from_numpy(smoothed.keys)
            table.log_probs = torch.from_numpy(smoothed.log_probs).to(like)
            if table.log_backoffs is not None and smoothed.log_backoffs is not None:
                table.log_backoffs = torch.from_numpy(smoothed.log_backoffs).to(like)
            if table.counts is not None and smoothed.counts is not None:
                table.counts = torch.from_numpy(smoothed.counts.astype(np.int32, copy=False))
        return self.to(like.device)

    def init_state(self, batch_size: int = 1) -> NGramState:
        """The state of `batch_size` empty sequences."""
        ids = torch.full((batch_size, self.config.order - 1), -1, device=self.device)
        return NGramState(ids, n_read=(0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: NGramState | None = None
    ) -> tuple[Float[Tensor, "B T W"], NGramState | None]:
        """Row of the last k tokens in table k after each token, for k from 0 to order − 1, (B, T, order); −1 for none.

        Raises VocabularyMismatch for an id outside the vocabulary.
        """
        before = self.init_state(len(tokens.ids)) if state is None else state
        tables, ids = self.lookup(), to_numpy(tokens.ids)
        contexts = tables.context_rows(tables.with_history(before.to_last_ids(), ids))
        rows = [np.zeros_like(ids), *(each[:, each.shape[1] - ids.shape[1] :] for each in contexts)]
        # Integers as float64, which holds them exactly.
        hidden = torch.from_numpy(np.stack(rows, -1).astype(np.float64)).to(before.ids.device)
        return hidden, None if state is None else self.next_state(before, tokens)

    def next_state(self, before: NGramState, tokens: TokenBatch) -> NGramState:
        """The state after the new tokens."""
        lengths = None if tokens.lengths is None else to_numpy(tokens.lengths)
        after = self.lookup().next_state(before.to_last_ids(), to_numpy(tokens.ids), lengths)
        return before.after(after, [tokens.ids.shape[1]] * len(tokens.ids) if lengths is None else lengths.tolist())

    def lookup(self) -> NGramTables:
        """The tables as numpy arrays, which share memory with the buffers; copies of those on other devices."""
        orders = [self.table(order) for order in range(1, self.config.order + 1)]
        tensors = [tensor for table in orders for tensor in (table.keys, table.log_probs, table.log_backoffs)]
        shared = self.device.type == "cpu" and self.dtype in (torch.float32, torch.float64)
        key = None if shared else tuple(version_of(tensor) for tensor in tensors if tensor is not None)
        if key is None or self.copied is None or self.copied[0] != key:
            tables = NGramTables(
                config=self.config,
                keys=[to_numpy(table.keys) for table in orders[1:]],
                log_probs=[to_numpy(table.log_probs) for table in orders],
                log_backoffs=[to_numpy(table.log_backoffs) for table in orders[:-1]],
            )
            if key is None:
                return tables
            self.copied = (key, tables)
        return self.copied[1]

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Log-probabilities of the next token, (..., V); they are normalised already."""
        contexts = hidden.reshape(-1, hidden.shape[-1]).long()
        log_probs = self.table(1).log_probs.expand(len(contexts), -1).clone()
        for order in range(2, self.config.order + 1):
            self.apply_order(order, contexts[:, order - 1], log_probs)
        return log_probs.view(*hidden.shape[:-1], self.vocab)

    def context_features(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D F"]:
        """For each order from 2, whether its table has the context, and the logarithm of the context's backoff weight
        (at least −8; 0 where there is no context): how much of the context was counted, and how well it predicts.
        """
        contexts = hidden.long()
        features = []
        for order in range(1, self.config.order):
            rows = contexts[..., order]
            features.append((rows >= 0).to(self.table(1).log_probs.dtype))
            features.append(take_rows(self.table(order).log_backoffs, rows, 0.0).clamp(min=-8.0))
        return torch.stack(features, -1) if features else self.table(1).log_probs.new_zeros(*hidden.shape[:-1], 0)

    def apply_order(self, order: int, contexts: Int[Tensor, "N"], log_probs: Float[Tensor, "N V"]) -> None:
        """Update log-probabilities in place by one order: its n-grams where seen, its backoff weight elsewhere."""
        table = self.table(order)
        at = (contexts >= 0).nonzero()[:, 0]
        chosen = contexts[at]
        log_backoffs = self.table(order - 1).log_backoffs[chosen]
        log_probs[at] = self.back_off(log_backoffs[:, None], log_probs[at])
        # The n-grams of one context are adjacent rows.
        first = torch.searchsorted(table.keys, chosen * self.vocab)
        sizes = torch.searchsorted(table.keys, (chosen + 1) * self.vocab) - first
        total = int(sizes.sum())
        shift = torch.repeat_interleave(first - sizes.cumsum(0) + sizes, sizes, output_size=total)
        rows = torch.arange(total, device=shift.device) + shift
        contexts_of_rows = torch.repeat_interleave(at, sizes, output_size=total)
        log_probs[contexts_of_rows, table.keys[rows] % self.vocab] = table.log_probs[rows]

    def back_off(self, log_backoffs: Tensor, shorter: Tensor) -> Tensor:
        """As `NGramTables.back_off`."""
        if self.config.smoothing == "laplace":
            return torch.where(log_backoffs < 0, log_backoffs, shorter)
        return shorter + log_backoffs

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: NGramState | None = None
    ) -> tuple[Float[Tensor, "B T"], NGramState | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX. Looked up, not summed."""
        before = self.init_state(len(tokens.ids)) if state is None else state
        nll, _ = self.lookup().token_nll(to_numpy(tokens.ids), None, to_numpy(targets), before.to_last_ids())
        nats = torch.from_numpy(nll).to(before.ids.device, self.dtype)
        return nats, None if state is None else self.next_state(before, tokens)


def take_rows(values: Float[Tensor, "R"], rows: Int[Tensor, "*D"], missing: float) -> Float[Tensor, "*D"]:
    """The values of these rows; `missing` where a row is −1."""
    if not len(values):
        return values.new_full(rows.shape, missing)
    return values[rows.clamp(min=0)].where(rows >= 0, missing)


def to_numpy(tensor: Tensor) -> Any:
    """A tensor as an array, which shares the memory of a CPU tensor."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


def version_of(tensor: Tensor) -> tuple[int, int]:
    """The address of a tensor and its version counter."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
