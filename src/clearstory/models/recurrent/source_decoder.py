"""The decoder of a recurrent encoder-decoder, over whole targets (training) and token by token (generation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearstory.models.autograd_functions import Linear, dropout
from clearstory.models.batched_state import BatchedState
from clearstory.models.recurrent.cells import CellState, RecurrentLayer, keep_ended
from clearstory.models.recurrent.recurrence import SourceTerms, run_recurrence
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig
from clearstory.models.recurrent.source_attention import SourceAttention


class DecoderSource(NamedTuple):
    """What the decoder reads of a source: its tokens' vectors with their keys; or its summary, one vector; or nothing.

    Args:
        values: vectors that contexts are averages of.
        keys: their keys; of size 0 without attention.
        lengths: number of vectors of each sequence.
    """

    values: Float[Tensor, "B S U"]
    keys: Float[Tensor, "B S A"]
    lengths: Int[Tensor, "B"]

    def padding(self) -> Bool[Tensor, "B S"] | None:
        """True where a source has ended; None if none is padded."""
        count = self.values.shape[1]
        if bool((self.lengths == count).all()):
            return None
        return torch.arange(count, device=self.lengths.device) >= self.lengths[:, None]


class SourceDecoder(nn.Module):
    """Recurrent layers over a target, with what they read of the source at each token, and the vector that logits are
    computed from: h̃_i = tanh(W [s_i; c_i; y_{i-1}]), the deep output of Bahdanau et al. 2015 with tanh for maxout.
    """

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        first = c.width + c.context_size * c.feeds_context
        self.layers = nn.ModuleList(
            RecurrentLayer(c.cell, inputs, units, 0.0)
            for inputs, units in zip((first, *c.units[:-1]), c.units, strict=True)
        )
        self.cross_attention = None if c.attention == "none" else SourceAttention(c)
        self.readout = Linear(c.hidden_size + c.context_size + c.width, c.width)

    def source_of(self, outputs: Float[Tensor, "S B U"], summary: CellState, lengths: Tensor | None) -> DecoderSource:
        """What is read of a source at each token, from the encoder's outputs and its last state."""
        batch = outputs.shape[1]
        if self.cross_attention is None:
            values = summary.hidden[:, None] if self.config.feed_summary else outputs.new_empty(batch, 0, 0)
            return DecoderSource(values, values[..., :0], torch.full((batch,), values.shape[1], device=values.device))
        values = outputs.transpose(0, 1)
        if lengths is None:
            lengths = torch.full((batch,), len(outputs), device=outputs.device)
        return DecoderSource(values, self.cross_attention.key(values), lengths)

    def forward(
        self, y: Float[Tensor, "T B W"], before: Sequence[CellState], source: DecoderSource
    ) -> Float[Tensor, "B T W"]:
        """The vectors after each token of whole targets, (B, T, W), each layer in one pass."""
        first = cast(RecurrentLayer, self.layers[0])
        replaced = not (isinstance(first.input, nn.Linear) and isinstance(first.recurrent, nn.Linear))
        if replaced and self.config.feeds_context:  # by a decoding view or by LoRA
            return self.decode(y, before, source, None)[0]
        padding, weights, contexts = source.padding(), None, None
        if self.config.attention == "additive":
            x, weights = self.attend_recurrently(y, before[0], source, padding)
        elif self.config.feed_summary:
            contexts = source.values.expand(-1, len(y), -1)
            x, _ = first(torch.cat([y, contexts.transpose(0, 1)], -1), before[0], None)
        else:
            x, _ = first(y, before[0], None)
        for layer, state in zip(self.layers[1:], before[1:], strict=True):
            x, _ = layer(dropout(x, self.config.dropout, self.training), state, None)
        states = x.transpose(0, 1)
        if self.config.attention == "dot" and self.cross_attention is not None:
            weights = self.cross_attention(states, source.keys, padding)
        if weights is not None and self.cross_attention is not None:
            contexts = torch.bmm(self.cross_attention.pattern(weights), source.values)
        return self.output(states, contexts, y.transpose(0, 1))

    def attend_recurrently(
        self, y: Float[Tensor, "T B W"], before: CellState, source: DecoderSource, padding: Tensor | None
    ) -> tuple[Float[Tensor, "T B U"], Float[Tensor, "B T S"]]:
        """The first layer's states and attention weights under additive attention; see `recurrence`."""
        first, attention = cast(RecurrentLayer, self.layers[0]), self.cross_attention
        assert attention is not None
        assert attention.query is not None
        assert attention.energy is not None
        weight = first.input.weight.to(y.dtype)
        of_token, of_context = weight[:, : self.config.width], weight[:, self.config.width :]
        terms = SourceTerms(
            keys=source.keys,
            gates=nn.functional.linear(source.values, of_context),
            query=attention.query.weight,
            energy=attention.energy,
            padding=padding,
        )
        projected = nn.functional.linear(y, of_token, first.input.bias.to(y.dtype))
        cell = None if before.cell is None else before.cell.to(first.input.weight.dtype)
        found = run_recurrence(
            self.config.cell, projected, first.recurrent.weight, first.recurrent.bias, before.hidden, cell, terms
        )
        return found.hidden, found.weights.transpose(0, 1)

    def decode(
        self,
        y: Float[Tensor, "T B W"],
        before: Sequence[CellState],
        source: DecoderSource,
        lengths: Int[Tensor, "B"] | None,
    ) -> tuple[Float[Tensor, "B T W"], list[CellState]]:
        """The vectors after each token, (B, T, W), token by token, and the states after each sequence's last."""
        states, padding = list(before), source.padding()
        outputs, patterns = [], []
        for step, token in enumerate(y):
            after, context, weights = self.step(token, states, source, padding)
            if lengths is not None:
                after = [keep_ended(new, old, lengths > step) for new, old in zip(after, states, strict=True)]
            states = after
            outputs.append(self.output(states[-1].hidden, context, token))
            if weights is not None:
                patterns.append(weights)
        if patterns and self.cross_attention is not None:
            self.cross_attention.pattern(torch.cat(patterns, 1))
        return torch.stack(outputs, 1), states

    def step(
        self, token: Float[Tensor, "B W"], before: Sequence[CellState], source: DecoderSource, padding: Tensor | None
    ) -> tuple[list[CellState], Float[Tensor, "B U"] | None, Float[Tensor, "B 1 S"] | None]:
        """Each layer's state after one token, the context, and the attention weights."""
        weights, context, x, states = None, None, token, []
        if self.config.attention == "additive" and self.cross_attention is not None:
            weights = self.cross_attention(before[0].hidden[:, None].to(token.dtype), source.keys, padding)
            context = torch.bmm(weights, source.values.to(token.dtype))[:, 0]
        elif self.config.feed_summary:
            context = source.values[:, 0].to(token.dtype)
        if context is not None:
            x = torch.cat([token, context], -1)
        for index, (layer, state) in enumerate(zip(self.layers, before, strict=True)):
            own = cast(RecurrentLayer, layer)
            x = x if index == 0 else dropout(x, self.config.dropout, self.training)
            states.append(own.step(own.input(x), state))
            x = states[-1].hidden
        if self.config.attention == "dot" and self.cross_attention is not None:
            weights = self.cross_attention(x[:, None], source.keys, padding)
            context = torch.bmm(weights, source.values.to(token.dtype))[:, 0]
        return states, context, weights

    def output(
        self, states: Float[Tensor, "*D U"], contexts: Float[Tensor, "*D U"] | None, y: Float[Tensor, "*D W"]
    ) -> Float[Tensor, "*D W"]:
        """h̃, (..., W), from the last layer's states, the contexts, and the tokens read."""
        parts = [states, y] if contexts is None else [states, contexts, y]
        return dropout(torch.tanh(self.readout(torch.cat(parts, -1))), self.config.dropout, self.training)


@dataclass(frozen=True)
class RecurrentSeq2SeqState(BatchedState):
    """The State of a recurrent encoder-decoder: each layer's vectors, and what is read of each sequence's source."""

    hidden: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    values: Tensor
    keys: Tensor
    source_lengths: Tensor

    @property
    def source(self) -> DecoderSource:
        """What the decoder reads of the sources."""
        return DecoderSource(self.values, self.keys, self.source_lengths)

    @property
    def states(self) -> list[CellState]:
        """Each layer's state."""
        cells = self.cells or (None,) * len(self.hidden)
        return [CellState(hidden, cell) for hidden, cell in zip(self.hidden, cells, strict=True)]

    def updated(self, states: Sequence[CellState], n_read: tuple[int, ...]) -> Self:
        """The state with these vectors."""
        cells = tuple(each.cell for each in states if each.cell is not None)
        return replace(self, hidden=tuple(each.hidden for each in states), cells=cells, n_read=n_read)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the sequences of several; shorter sources are padded."""
        longest = max(each.values.shape[1] for each in states)

        def padded(x: Tensor) -> Tensor:
            return nn.functional.pad(x, (0, 0, 0, longest - x.shape[1]))

        return super().join([replace(each, values=padded(each.values), keys=padded(each.keys)) for each in states])

    def select(self, rows: Sequence[int]) -> Self:
        """The state of these sequences, in this order; without the padding that only others needed."""
        chosen = super().select(rows)
        longest = int(chosen.source_lengths.max()) if rows else 0
        if longest == chosen.values.shape[1]:
            return chosen
        return replace(chosen, values=chosen.values[:, :longest], keys=chosen.keys[:, :longest])

    def tensors(self) -> dict[str, Tensor]:
        """Each layer's vectors, the source's, and the number of tokens processed."""
        named = {f"hidden.{layer}": each for layer, each in enumerate(self.hidden)}
        named |= {f"cells.{layer}": each for layer, each in enumerate(self.cells)}
        own = {"values": self.values, "keys": self.keys, "source_lengths": self.source_lengths}
        return {**named, **own, "n_read": torch.tensor(self.n_read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that `tensors()` returned these tensors for, on this one's device. Raises KeyError if one is
        missing.
        """
        device = self.values.device
        return replace(
            self,
            hidden=tuple(tensors[f"hidden.{layer}"].to(device) for layer in range(len(self.hidden))),
            cells=tuple(tensors[f"cells.{layer}"].to(device) for layer in range(len(self.cells))),
            values=tensors["values"].to(device),
            keys=tensors["keys"].to(device),
            source_lengths=tensors["source_lengths"].to(device),
            n_read=tuple(tensors["n_read"].tolist()),
        )
