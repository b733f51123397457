"""Recurrent layers, over whole sequences with PyTorch's kernels and for one time step with its gates; and their state.

Which way is fastest was measured (one thread of an AVX-512 CPU with bf16, an LSTM of 512 units):

    forward, 64 tokens of 32 sequences    oneDNN 25, PyTorch's loop 18, oneDNN in bf16 49 thousand tokens/s
    forward and backward                  oneDNN 7.6, PyTorch's loop 5.8, oneDNN in bf16 9.9
    forward, one token of one sequence    oneDNN 5.2 ms, `step` 0.22 ms

oneDNN repacks the weights at every call, which a single token does not repay.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clearstory.models.autograd_functions import Linear
from clearstory.models.batched_state import BatchedState
from clearstory.models.recurrent.config import GATES, Cell

KERNELS: dict[Cell, Any] = {"rnn": torch.rnn_tanh, "gru": torch.gru, "lstm": torch.lstm}


class CellState(NamedTuple):
    """The state of one layer between two tokens: its hidden vector, and an LSTM's cell vector."""

    hidden: Float[Tensor, "B U"]
    cell: Float[Tensor, "B U"] | None


class RecurrentLayer(nn.Module):
    """One recurrent layer: weights from its input (`input`) and from its hidden state (`recurrent`), gates stacked.

    Gates are in PyTorch's order: input, forget, new, output (LSTM); reset, update, new (GRU).
    """

    def __init__(self, cell: Cell, inputs: int, units: int, weight_drop: float) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.weight_drop = weight_drop
        self.input = Linear(inputs, GATES[cell] * units)
        self.recurrent = Linear(units, GATES[cell] * units)

    def forward(
        self, x: Float[Tensor, "T B I"], before: CellState, lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "T B U"], CellState]:
        """Hidden vectors after each token, (T, B, U), and the state after each sequence's last token."""
        # A decoding view replaces the linear layers by modules that PyTorch's kernels cannot use.
        replaced = not (isinstance(self.input, nn.Linear) and isinstance(self.recurrent, nn.Linear))
        if replaced or (len(x) == 1 and lengths is None and not torch.is_grad_enabled()):
            return self.forward_stepwise(x, before, lengths)
        weights = self.weights(x.dtype)
        first = tuple(each.to(x.dtype)[None] for each in before if each is not None)
        settings = (True, 1, 0.0, torch.is_grad_enabled(), False)  # biases, layers, dropout, train, bidirectional
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
        """The weights in the order and dtype of PyTorch's kernels; recurrent ones with dropout in training."""
        recurrent = F.dropout(self.recurrent.weight, self.weight_drop, self.training)
        return [each.to(dtype) for each in (self.input.weight, recurrent, self.input.bias, self.recurrent.bias)]

    def forward_stepwise(
        self, x: Float[Tensor, "T B I"], before: CellState, lengths: Int[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "T B U"], CellState]:
        """`forward` as a loop over time steps."""
        state = CellState(before.hidden.to(x.dtype), None if before.cell is None else before.cell.to(x.dtype))
        out = []
        for t, projected in enumerate(self.input(x)):
            after = self.step(projected, state)
            state = after if lengths is None else keep_ended(after, state, lengths > t)
            out.append(state.hidden)
        return torch.stack(out), state

    def step(self, projected: Float[Tensor, "B G"], before: CellState) -> CellState:
        """The state after one token, given its projected input, (B, gates · U)."""
        gates = self.gates(projected, before)
        if self.cell == "rnn":
            return CellState(gates["new"], None)
        if before.cell is None:
            # Cho et al. 2014, eq. 7
            return CellState(torch.lerp(gates["new"], before.hidden, gates["update"]), None)
        # Gers et al. 2000, eq. 9 and 11
        cell = gates["forget"] * before.cell + gates["input"] * gates["new"]
        return CellState(gates["output"] * torch.tanh(cell), cell)

    def gates(self, projected: Float[Tensor, "B G"], before: CellState) -> dict[str, Float[Tensor, "B U"]]:
        """Activations of the gates, 0 (closed) to 1 (open), and of the new candidate, -1 to 1, at one token."""
        from_hidden = self.recurrent(before.hidden.to(projected.dtype))
        if self.cell == "rnn":
            return {"new": torch.tanh(projected + from_hidden)}
        if self.cell == "gru":
            reset, update, new = projected.chunk(3, -1)
            reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3, -1)
            reset_gate = torch.sigmoid(reset + reset_hidden)
            # PyTorch's form: the reset gate acts after the matrix, not before it as in Cho et al. 2014.
            return {
                "reset": reset_gate,
                "update": torch.sigmoid(update + update_hidden),
                "new": torch.tanh(new + reset_gate * new_hidden),
            }
        input_gate, forget, new, out = (projected + from_hidden).chunk(4, -1)
        return {
            "input": torch.sigmoid(input_gate),
            "forget": torch.sigmoid(forget),
            "output": torch.sigmoid(out),
            "new": torch.tanh(new),
        }


@contextmanager
def ignore_cudnn_warning(device: torch.device) -> Iterator[None]:
    """Context that hides cuDNN's warning about weights that are not contiguous: they are cast, and some dropped out,
    for each call, and so copied anyway.
    """
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk", UserWarning)
        yield


def keep_ended(after: CellState, before: CellState, active: Tensor) -> CellState:
    """The new state of sequences that are still `active`, and the old one of those that have ended."""
    hidden = torch.where(active[:, None], after.hidden, before.hidden.to(after.hidden.dtype))
    if after.cell is None or before.cell is None:
        return CellState(hidden, None)
    return CellState(hidden, torch.where(active[:, None], after.cell, before.cell.to(after.cell.dtype)))


@dataclass(frozen=True)
class RecurrentState(BatchedState):
    """The State of a recurrent model: hidden states (B, units) of each layer, and cell states of an LSTM."""

    hidden: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Each layer's vectors, and the number of tokens processed."""
        named = {f"hidden.{layer}": each for layer, each in enumerate(self.hidden)}
        named |= {f"cells.{layer}": each for layer, each in enumerate(self.cells)}
        return {**named, "n_read": torch.tensor(self.n_read)}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The state that `tensors()` returned these tensors for, on this one's device. Raises KeyError if one is
        missing.
        """
        device = self.hidden[0].device
        return replace(
            self,
            hidden=tuple(tensors[f"hidden.{layer}"].to(device) for layer in range(len(self.hidden))),
            cells=tuple(tensors[f"cells.{layer}"].to(device) for layer in range(len(self.cells))),
            n_read=tuple(tensors["n_read"].tolist()),
        )
