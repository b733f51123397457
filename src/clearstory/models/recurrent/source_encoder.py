"""The encoder of a recurrent encoder-decoder, unidirectional or bidirectional, and the initial states of the
decoder.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.autograd_functions import dropout
from clearstory.models.recurrent.cells import CellState, RecurrentLayer
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig


class EncodedSource(NamedTuple):
    """The last layer's output at each token, (S, B, U), and each layer's state after the last token read."""

    outputs: Float[Tensor, "S B U"]
    states: list[CellState]


class BidirectionalLayer(nn.Module):
    """Two recurrent layers, one from each end of the source, whose outputs and last states are concatenated.

    Schuster and Paliwal 1997.
    """

    def __init__(self, forwards: RecurrentLayer, backwards: RecurrentLayer) -> None:
        super().__init__()
        self.forwards = forwards
        self.backwards = backwards

    def forward(
        self, x: Float[Tensor, "S B I"], before: CellState, lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "S B U"], CellState]:
        """Both directions' hidden vectors at each token, (S, B, U), and both directions' last states."""
        ahead, after = self.forwards(x, before, lengths)
        back, first = self.backwards(reversed_tokens(x, lengths), before, lengths)
        cell = None if after.cell is None or first.cell is None else torch.cat([after.cell, first.cell], -1)
        state = CellState(torch.cat([after.hidden, first.hidden], -1), cell)
        return torch.cat([ahead, reversed_tokens(back, lengths)], -1), state


class SourceEncoder(nn.Module):
    """Recurrent layers over a source; with two directions, half of the units read it from its end."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        units = c.hidden_size // 2 if c.bidirectional else c.hidden_size

        def layer(inputs: int) -> nn.Module:
            if not c.bidirectional:
                return RecurrentLayer(c.cell, inputs, units, 0.0)
            return BidirectionalLayer(*(RecurrentLayer(c.cell, inputs, units, 0.0) for _ in range(2)))

        self.units = units
        self.layers = nn.ModuleList(layer(inputs) for inputs in (c.width, *c.units[:-1]))

    def forward(self, x: Float[Tensor, "S B W"], lengths: Int[Tensor, "B"] | None) -> EncodedSource:
        """The encoded source from its embeddings."""
        c = self.config
        if c.reverse_source:
            x = reversed_tokens(x, lengths)
        zeros = x.new_zeros(x.shape[1], self.units)
        before = CellState(zeros, zeros if c.cell == "lstm" else None)
        states = []
        for index, layer in enumerate(self.layers):
            x, after = layer(x if index == 0 else dropout(x, c.dropout, self.training), before, lengths)
            states.append(cast(CellState, after))
        return EncodedSource(reversed_tokens(x, lengths) if c.reverse_source else x, states)


def reversed_tokens(x: Float[Tensor, "S B W"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "S B W"]:
    """Each sequence from its last token to its first; padding stays behind it.

    >>> reversed_tokens(torch.tensor([[1, 4], [2, 5], [3, 0]])[..., None], torch.tensor([3, 2]))[..., 0].tolist()
    [[3, 5], [2, 4], [1, 0]]
    """
    if lengths is None:
        return x.flip(0)
    position = torch.arange(len(x), device=x.device)[:, None]
    index = torch.where(position < lengths, lengths - 1 - position, position)
    return x.gather(0, index[..., None].expand_as(x))
