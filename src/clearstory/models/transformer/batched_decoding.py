"""BatchedDecoder: decodes one token of each of several sequences at once, over one KV cache with a slot for each.

A step is the same operations on the same tensors whatever the lengths of the sequences, so on a CUDA device it is
recorded as a graph. Sequences join after their prompt was processed into a cache of its own, and leave their slot to
others. Unlike a State this is no value: each step changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.models.transformer.batched_cache import BatchedKVCache, BatchedLayer, power_of_two
from clearstory.models.transformer.cache import KVCache, RowCache
from clearstory.models.transformer.cuda_graph import CUDAGraphs
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.stack import Stack

MIN_CAPACITY = 256
"""Initial number of tokens of a slot: attending to masked ones takes less time than recording a graph for each smaller
size.
"""

ID, POSITION, SOURCE_LENGTH, RECENT = range(4)
"""Columns of a step's input, a row for each slot; from RECENT on, the last ids, where hashed n-grams are looked up."""


def can_batch(model: object) -> bool:
    """Whether a model decodes by a BatchedDecoder: a decoder or encoder-decoder with attention, and without hooks,
    which a recorded graph would not call.
    """
    if not isinstance(model, Transformer | EncoderDecoder) or (
        isinstance(model, EncoderDecoder) and model.is_recurrent
    ):
        return False
    return not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


@dataclass(frozen=True)
class BatchedSequence:
    """A sequence of the batch.

    Args:
        slot: its slot of the cache.
        length: tokens processed.
        recent_ids: the last few of them, where the model looks up hashed n-grams.
        source_length: tokens of its source.
    """

    slot: int
    length: int
    recent_ids: tuple[int, ...] = ()
    source_length: int = 0


class BatchedDecoder:
    """The sequences that a model decodes in one batch.

    Args:
        model: a decoder or encoder-decoder; see `can_batch`.
        capacity: tokens of a slot at first.
        graphs: where steps are recorded, by their number of rows; by default on a CUDA device.

    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = Transformer(NANOGPT_CHAR).eval()
    >>> decoder = BatchedDecoder(model)
    >>> _, state = model.forward(TokenBatch.from_sequences([[1, 2, 3], [4]]), model.init_state(2))
    >>> decoder.add(state)
    >>> decoder.step([5, 6]).shape, decoder.lengths
    (torch.Size([2, 128]), [4, 2])
    """

    def __init__(
        self, model: Transformer | EncoderDecoder, capacity: int = MIN_CAPACITY, graphs: CUDAGraphs | None = None
    ) -> None:
        c = model.config
        self.model = model
        self.stack: Stack = model.decoder if isinstance(model, EncoderDecoder) else model
        self.window = c.cache_window or c.context
        self.n_recent = max(c.recall, default=0)
        self.sequences: list[BatchedSequence] = []
        self.cache = BatchedKVCache(min(c.context, self.window), capacity)
        self.sources = BatchedKVCache(c.context, 16)
        self.device = model.embedding.weight.device
        self.inputs = torch.zeros(0, RECENT + self.n_recent, dtype=torch.long, device=self.device)
        self.graphs = CUDAGraphs(self.device) if graphs is None and self.device.type == "cuda" else graphs

    @property
    def lengths(self) -> list[int]:
        """Number of tokens processed in each sequence."""
        return [each.length for each in self.sequences]

    @torch.no_grad()
    def add(self, state: KVCache) -> None:
        """Add the sequences of a cache after those that are there; their keys and values are copied."""
        count = len(self.sequences) + len(state.rows)
        free = sorted(set(range(count)) - {each.slot for each in self.sequences})
        self.reserve(count, max((row.length for row in state.rows), default=0), state.rows)
        for slot, row in zip(free, state.rows, strict=False):
            source_length = 0 if row.source is None else row.source.shape[3]
            self.cache.put(slot, row.buffer.data[:, :, :, : row.kept], row.length)
            if row.source is not None:
                self.sources.put(slot, row.source, source_length)
            self.sequences.append(BatchedSequence(slot, row.length, row.recent_ids, source_length))

    @torch.no_grad()
    def select(self, kept: Sequence[int]) -> None:
        """Keep these of the sequences, in this order; the slots of the others become free."""
        self.sequences = [self.sequences[index] for index in kept]
        # A step computes all slots up to the last; sequences move down where that halves their number.
        rows = power_of_two(len(kept))
        free = sorted(set(range(rows)) - {each.slot for each in self.sequences})
        for index, each in enumerate(self.sequences):
            if each.slot >= rows:
                target = free.pop(0)
                self.cache.move(each.slot, target)
                if each.source_length:
                    self.sources.move(each.slot, target)
                self.sequences[index] = replace(each, slot=target)

    def reserve(self, slots: int, length: int, rows: Sequence[RowCache] = ()) -> None:
        """Make room for this many slots, and for sequences of this length; `rows` have the shapes of what is stored."""
        first = rows[0] if rows else None
        replaced = self.cache.reserve(slots, length, None if first is None else first.buffer.data)
        if first is not None and first.source is not None:
            longest = max(row.source.shape[3] for row in rows if row.source is not None)
            replaced |= self.sources.reserve(slots, longest, first.source)
        if replaced:
            with torch.inference_mode(False):
                self.inputs = self.inputs.new_zeros(self.cache.slots, self.inputs.shape[1])
            if self.graphs is not None:
                self.graphs.clear()

    @torch.no_grad()
    def step(self, ids: Sequence[int]) -> Float[Tensor, "N K"]:
        """Hidden states after one more token of each sequence, (N, W); with hashed n-grams and their logits, (N, W +
        V). Raises ContextOverflow for a sequence with a full context, VocabularyMismatch for an unknown id.
        """
        longest = max(self.lengths) + 1
        self.stack.check_ids(torch.tensor(ids), longest)
        self.reserve(1, longest)
        after = [self.extended(each, new) for each, new in zip(self.sequences, ids, strict=True)]
        slots = [each.slot for each in after]
        rows = power_of_two(max(slots) + 1)
        self.inputs[:rows].copy_(self.input_rows(after, ids, rows))
        hidden = self.compute(rows) if self.graphs is None else self.graphs.run(rows, lambda: self.compute(rows))
        self.sequences = after
        if slots == list(range(len(slots))):
            return hidden[: len(slots)]
        return hidden.index_select(0, torch.tensor(slots, device=self.device))

    def extended(self, sequence: BatchedSequence, new: int) -> BatchedSequence:
        """A sequence with one more token."""
        recent = (*sequence.recent_ids, new)[-self.n_recent :] if self.n_recent else ()
        return replace(sequence, length=sequence.length + 1, recent_ids=recent)

    def input_rows(self, after: Sequence[BatchedSequence], ids: Sequence[int], rows: int) -> Tensor:
        """The input of a step, (rows, columns), on the CPU. Free slots process token 0 at position 0, for nothing."""
        unused = [0, 0, 1] + [-1] * self.n_recent
        table = [unused] * rows
        for each, new in zip(after, ids, strict=True):
            padding = [-1] * (self.n_recent - len(each.recent_ids))
            table[each.slot] = [new, each.length - 1, each.source_length, *padding, *each.recent_ids]
        return torch.tensor(table)

    def compute(self, rows: int) -> Float[Tensor, "R K"]:
        """Hidden states of the first `rows` slots for the input, (R, K).

        A computation that can be recorded: none of its operations waits for a value, and shapes depend on `rows` and
        capacities only.
        """
        inputs = self.inputs[:rows]
        ids, positions = inputs[:, ID, None], inputs[:, POSITION, None]
        distances = self.cache.distances(positions)
        visible = (distances <= positions) & (distances < self.window)
        relative = self.stack.relative_position_bias
        bias = None if relative is None else relative.bias(relative.bucket(-distances)).mT
        layers = self.cache.layers(visible, bias, positions)
        c = self.model.config
        if c.global_interval is not None and c.sliding_window is not None:
            local = self.cache.layers(visible & (distances < c.sliding_window), bias, positions)
            layers = [local[index] if c.is_local(index) else each for index, each in enumerate(layers)]
        sources: list[BatchedLayer] | None = None
        if self.sources.slots:
            indices = torch.arange(self.sources.capacity, device=self.device)
            sources = self.sources.layers(indices < inputs[:, SOURCE_LENGTH, None])
        if isinstance(self.model, EncoderDecoder):
            x = self.model.embed_target(ids, positions)
            return self.model.scale_hidden(self.stack.run_blocks_batched(x, layers, positions, sources)).squeeze(1)
        stored = None if self.model.recall is None else self.model.recall(inputs[:, RECENT:])[:, -1:]
        x = self.model.embed_tokens(ids, positions, stored)
        x = self.stack.run_blocks_batched(x, layers, positions)
        return self.model.apply_hashed_ngrams(x, stored).squeeze(1)
