"""TokenCache: keys and values of each token in the memory of its decoding step, accessed by their addresses.

Nothing is copied or moved when sequences part, join or leave: a sequence is a row of addresses, and a token that
several continue is in all their rows. So a step of beam search costs the new tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

TokenChain = tuple[Tensor, int, Any] | None
"""What keeps a sequence's tokens in memory: the tensor and row of the last one, and the chain of those before it."""


@dataclass(frozen=True)
class EncodedSources:
    """Keys and values of several sources, concatenated.

    Args:
        tokens: of all sources, (N, layers, 2, kv_heads, head_dim).
        starts: index of each source's first token.
        lengths: number of tokens of each source.
    """

    tokens: Float[Tensor, "N L 2 K D"]
    starts: list[int]
    lengths: list[int]


@dataclass(frozen=True)
class TokenCache:
    """The State of an encoder-decoder in its inference form.

    Args:
        lengths: number of tokens processed in each sequence.
        addresses: of the keys and values of each sequence's tokens, (B, T); 0 behind its end.
        chains: what keeps them in memory.
        sources: each sequence's source: the tensor of its batch, and its row of addresses and lengths.
        source_rows: address and number of tokens of each sequence's source.
    """

    lengths: list[int]
    addresses: Int[Tensor, "B T"]
    chains: tuple[TokenChain, ...]
    sources: tuple[tuple[EncodedSources, int], ...]
    source_rows: Int[Tensor, "B 2"]

    @classmethod
    def of_sources(cls, sources: EncodedSources) -> Self:
        """Empty sequences, one for each source."""
        count = len(sources.starts)
        tokens = sources.tokens
        step = tokens.stride(0) * tokens.element_size() if len(tokens) else 0
        rows = [
            (tokens.data_ptr() + start * step, length)
            for start, length in zip(sources.starts, sources.lengths, strict=True)
        ]
        return cls(
            [0] * count,
            torch.zeros(count, 0, dtype=torch.long),
            (None,) * count,
            tuple((sources, index) for index in range(count)),
            torch.tensor(rows, dtype=torch.long).view(count, 2),
        )

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order."""
        if list(rows) == list(range(len(self.lengths))):
            return self
        index = torch.tensor(rows, dtype=torch.long)
        return replace(
            self,
            lengths=[self.lengths[row] for row in rows],
            addresses=self.addresses.index_select(0, index),
            chains=tuple(self.chains[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            source_rows=self.source_rows.index_select(0, index),
        )

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several, whose lengths may differ."""
        width = max(state.addresses.shape[1] for state in states)
        return cls(
            [length for state in states for length in state.lengths],
            torch.cat([F.pad(state.addresses, (0, width - state.addresses.shape[1])) for state in states]),
            tuple(chain for state in states for chain in state.chains),
            tuple(source for state in states for source in state.sources),
            torch.cat([state.source_rows for state in states]),
        )

    def extended(self, new: Sequence[int], tokens: Float[Tensor, "N L 2 K D"]) -> Self:
        """The state after so many new tokens of each sequence, whose keys and values will be in `tokens`."""
        lengths = [length + count for length, count in zip(self.lengths, new, strict=True)]
        width = self.addresses.shape[1]
        addresses = self.addresses.new_zeros(len(lengths), max(width, max(lengths, default=0)))
        addresses[:, :width] = self.addresses
        step = tokens.stride(0) * tokens.element_size()
        own = torch.arange(len(tokens)) * step + tokens.data_ptr()
        if all(count == 1 for count in new):
            addresses[torch.arange(len(lengths)), torch.tensor(self.lengths, dtype=torch.long)] = own
        else:
            first = 0
            for row, (start, count) in enumerate(zip(self.lengths, new, strict=True)):
                addresses[row, start : start + count] = own[first : first + count]
                first += count
        chains = list(self.chains)
        index = 0
        for row, count in enumerate(new):
            for _ in range(count):
                chains[row] = (tokens, index, chains[row])
                index += 1
        return replace(self, lengths=lengths, addresses=addresses, chains=tuple(chains))

    def detach(self) -> Self:
        """The state itself: it holds no gradients."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Each sequence's keys and values, and its length."""
        out: dict[str, Tensor] = {}
        for i, (length, chain, (sources, row)) in enumerate(zip(self.lengths, self.chains, self.sources, strict=True)):
            kept = []
            while chain is not None:
                tokens, index, chain = chain
                kept.append(tokens[index])
            if kept:
                out[f"rows.{i}.kept"] = torch.stack(kept[::-1], 3)
            out[f"rows.{i}.length"] = torch.tensor(length)
            start = sources.starts[row]
            out[f"rows.{i}.source"] = sources.tokens[start : start + sources.lengths[row]].permute(1, 2, 3, 0, 4)
        return out
