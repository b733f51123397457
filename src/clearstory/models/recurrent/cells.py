"""Cells: one layer that reads a text in time, by torch's own kernels; and one step of it with its gates in the open.

Which road is fastest was measured (one thread of an AVX-512 processor with bf16, an LSTM of 512 units):

    reading 64 tokens of 32 rows     oneDNN 25, torch's own loop 18, oneDNN in bf16 49 thousand tokens/s
    learning the same                oneDNN 7.6, torch's own loop 5.8, oneDNN in bf16 9.9
    reading one token of one row     oneDNN 5.2 ms, a step 0.22 ms

oneDNN packs the weights anew at every call, which a single token does not repay.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clearstory.models.autograd_functions import Linear
from clearstory.models.recurrent.config import GATES, Cell

KERNELS: dict[Cell, Any] = {"rnn": torch.rnn_tanh, "gru": torch.gru, "lstm": torch.lstm}


class CellState(NamedTuple):
    """What a layer remembers between two tokens; only an LSTM has a `cell` beside its hidden vector."""

    hidden: Float[Tensor, "B U"]
    cell: Float[Tensor, "B U"] | None


class RecurrentLayer(nn.Module):
    """A cell and its weights: from what comes in (`input`) and from what it remembers (`memory`), gates stacked.

    The gates stand in torch's order: input, forget, new, output (LSTM); reset, update, new (GRU).
    """

    def __init__(self, cell: Cell, inputs: int, units: int, weight_drop: float) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.weight_drop = weight_drop
        self.input = Linear(inputs, GATES[cell] * units)
        self.memory = Linear(units, GATES[cell] * units)

    def forward(
        self, x: Float[Tensor, "T B I"], before: CellState, lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "T B U"], CellState]:
        """The hidden vector after each token, and what is remembered after each row's last one."""
        # A view for decoding puts something else in the place of the linear maps, which no kernel of torch's can read.
        viewed = not (isinstance(self.input, nn.Linear) and isinstance(self.memory, nn.Linear))
        if viewed or (len(x) == 1 and lengths is None and not torch.is_grad_enabled()):
            return self.forward_stepwise(x, before, lengths)
        weights = self.weights(x.dtype)
        first = tuple(each.to(x.dtype)[None] for each in before if each is not None)
        settings = (True, 1, 0.0, torch.is_grad_enabled(), False)  # biases, layers, dropout, to be learnt, both ways
        if lengths is None:
            with ignore_cudnn_warning(x.device):
                out, *last = KERNELS[self.cell](
                    x, first if before.cell is not None else first[0], weights, *settings, False
                )
            return out, CellState(last[0][0], last[1][0] if len(last) > 1 else None)
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
        assert packed.sorted_indices is not None  # as asked for by enforce_sorted=False
        first = tuple(each.index_select(1, packed.sorted_indices) for each in first)
        with ignore_cudnn_warning(x.device):
            out, *last = KERNELS[self.cell](
                packed.data, packed.batch_sizes, first if before.cell is not None else first[0], weights, *settings
            )
        found = packed._replace(data=out)
        after = [each[0].index_select(0, packed.unsorted_indices) for each in last]
        return (
            pad_packed_sequence(found, total_length=len(x))[0],
            keep_ended(CellState(after[0], after[1] if len(after) > 1 else None), before, lengths > 0),
        )

    def weights(self, dtype: torch.dtype) -> list[Tensor]:
        """In the order and the arithmetic of torch's kernels; some from memory to memory dropped in training."""
        memory = F.dropout(self.memory.weight, self.weight_drop, self.training)
        return [each.to(dtype) for each in (self.input.weight, memory, self.input.bias, self.memory.bias)]

    def forward_stepwise(
        self, x: Float[Tensor, "T B I"], before: CellState, lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "T B U"], CellState]:
        """Token by token."""
        kept = CellState(before.hidden.to(x.dtype), None if before.cell is None else before.cell.to(x.dtype))
        out = []
        for place, given in enumerate(self.input(x)):
            after = self.step(given, kept)
            kept = after if lengths is None else keep_ended(after, kept, lengths > place)
            out.append(kept.hidden)
        return torch.stack(out), kept

    def step(self, given: Float[Tensor, "B G"], before: CellState) -> CellState:
        """One token. `given`: what `input` makes of it."""
        gates = self.gates(given, before)
        if self.cell == "rnn":
            return CellState(gates["new"], None)
        if before.cell is None:
            # Cho et al. 2014, eq. 7
            return CellState(torch.lerp(gates["new"], before.hidden, gates["update"]), None)
        # Gers et al. 2000, eq. 9 and 11
        cell = gates["forget"] * before.cell + gates["input"] * gates["new"]
        return CellState(gates["output"] * torch.tanh(cell), cell)

    def gates(self, given: Float[Tensor, "B G"], before: CellState) -> dict[str, Float[Tensor, "B U"]]:
        """Every gate, from 0 (shut) to 1 (open), and what is new, from -1 to 1, at one token."""
        remembered = self.memory(before.hidden.to(given.dtype))
        if self.cell == "rnn":
            return {"new": torch.tanh(given + remembered)}
        if self.cell == "gru":
            reset, update, new = given.chunk(3, -1)
            of_reset, of_update, of_new = remembered.chunk(3, -1)
            opened = torch.sigmoid(reset + of_reset)
            # torch's form: the reset gate acts after the matrix, not before it as in Cho et al. 2014.
            return {
                "reset": opened,
                "update": torch.sigmoid(update + of_update),
                "new": torch.tanh(new + opened * of_new),
            }
        into, forget, new, out = (given + remembered).chunk(4, -1)
        return {
            "input": torch.sigmoid(into),
            "forget": torch.sigmoid(forget),
            "output": torch.sigmoid(out),
            "new": torch.tanh(new),
        }


@contextmanager
def ignore_cudnn_warning(device: torch.device) -> Iterator[None]:
    """cuDNN wants all weights in one stretch of memory and says so at every call. Ours are cast, and some of them
    dropped, for each call: they are copied together anyway.
    """
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk", UserWarning)
        yield


def keep_ended(after: CellState, before: CellState, going: Tensor) -> CellState:
    """What the rows that are `going` remember now, and the others remembered before."""
    hidden = torch.where(going[:, None], after.hidden, before.hidden.to(after.hidden.dtype))
    if after.cell is None or before.cell is None:
        return CellState(hidden, None)
    return CellState(hidden, torch.where(going[:, None], after.cell, before.cell.to(after.cell.dtype)))
