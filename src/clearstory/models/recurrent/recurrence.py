"""A recurrent layer with additive attention to a source, over a whole sequence, and its gradients by hand.

Bahdanau et al. 2015, appendix A.1.2 and A.2.2:

    e_ij = vᵀ tanh(W_a s_{i-1} + U_a h_j)   α_i = softmax(e_i)   c_i = Σ_j α_ij h_j   s_i = cell(y_{i-1}, c_i, s_{i-1})

A loop over time steps in autograd adds to the gradient of every weight at every step. Here the products with y are one
product for all steps, U_a h_j and the products of h_j with the cell's weights are computed once for each source, so
that a step averages the latter in place of multiplying c_i, the loop contains only what depends on the step before, and
the gradients of all weights are one product each after it.

Letters in shapes: T steps, B sequences, U units, G gates times units, S source tokens, A size of queries and keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearstory.models.recurrent.config import Cell


class SourceTerms(NamedTuple):
    """What a step needs of the source: computed once for all steps.

    Args:
        keys: U_a h_j.
        gates: the products of h_j with the cell's weights from the context.
        query: W_a.
        energy: v_a.
        padding: True where the source has ended; None if no source is padded.
    """

    keys: Float[Tensor, "B S A"]
    gates: Float[Tensor, "B S G"]
    query: Float[Tensor, "A U"]
    energy: Float[Tensor, "A"]
    padding: Bool[Tensor, "B S"] | None


class Recurrence(NamedTuple):
    """The states after each step, (T, B, U), an LSTM's cell vectors, and the attention weights, (T, B, S)."""

    hidden: Float[Tensor, "T B U"]
    cells: Float[Tensor, "T B U"] | None
    weights: Float[Tensor, "T B S"]


def run_recurrence(
    cell: Cell,
    projected: Float[Tensor, "T B G"],
    recurrent: Float[Tensor, "G U"],
    bias: Float[Tensor, "G"],
    hidden: Float[Tensor, "B U"],
    cell_vector: Float[Tensor, "B U"] | None,
    source: SourceTerms,
) -> Recurrence:
    """The states after each step, differentiable, in the dtype of the projected inputs y_{i-1}.

    `recurrent` and `bias` are the cell's weights from the state before.
    """
    dtype = projected.dtype
    keys, gates, query, energy = (each.to(dtype) for each in source[:4])
    # One product gives the state's part of the gates and the query.
    weight = torch.cat([recurrent.to(dtype), query])
    bias = torch.cat([bias.to(dtype), query.new_zeros(len(query))])
    found = _Recurrence.apply(  # type: ignore[no-untyped-call]  # torch's
        cell, source.padding, projected, weight, bias, hidden.to(dtype), cell_vector, keys, gates, energy
    )
    return Recurrence(*found)


class _Recurrence(torch.autograd.Function):
    """`run_recurrence`; products in the dtype of the input, an LSTM's cell vectors in their own."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        padding: Tensor | None,
        projected: Tensor,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        cell_vector: Tensor | None,
        keys: Tensor,
        gates: Tensor,
        energy: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        steps, batch, size = projected.shape
        states = projected.new_empty(steps + 1, *hidden.shape)
        states[0] = hidden
        cells = None if cell_vector is None else cell_vector.new_empty(steps + 1, *cell_vector.shape)
        if cells is not None and cell_vector is not None:
            cells[0] = cell_vector
        weights = projected.new_empty(steps, batch, keys.shape[1])
        saved: list[tuple[Tensor, ...]] = []
        for step in range(steps):
            products = torch.addmm(bias, states[step], weight.t())
            from_state, query = products[:, :size], products[:, size:]
            weights[step] = attention_weights(query, keys, energy, padding)
            inputs = projected[step] + torch.bmm(weights[step, :, None], gates)[:, 0]
            if cells is None:
                own = STEPS[cell](inputs, from_state, states[step], states[step + 1])
            else:
                own = lstm_step(inputs, from_state, cells[step], cells[step + 1], states[step + 1])
            saved.append((*own, query))
        ctx.cell, ctx.saved = cell, saved
        ctx.save_for_backward(weight, states, cells, weights, keys, gates, energy)
        return states[1:], None if cells is None else cells[1:], weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, states, cells, weights, *source = ctx.saved_tensors
        hidden_grads, cell_grads, weights_grads = grads
        steps, batch, size = len(weights), len(weights[0]), source[1].shape[2]
        of_inputs = states.new_empty(steps, batch, size)
        of_products = states.new_empty(steps, batch, len(weight))
        attention = AttentionGradients(source, weights)
        hidden_grad = torch.zeros_like(states[0])
        cell_grad = None if cells is None else torch.zeros_like(cells[0])
        for step in reversed(range(steps)):
            saved, of_input, of_state = ctx.saved[step], of_inputs[step], of_products[step, :, :size]
            if hidden_grads is not None:
                hidden_grad = hidden_grad + hidden_grads[step]
            if cell_grad is None:
                direct = BACKWARD_STEPS[ctx.cell](
                    hidden_grad, states[step], states[step + 1], saved, of_input, of_state
                )
            else:
                direct, cell_grad = None, cell_grad if cell_grads is None else cell_grad + cell_grads[step]
                cell_grad = lstm_backward_step(hidden_grad, cell_grad, cells[step], saved, of_input, of_state)
            weights_grad = None if weights_grads is None else weights_grads[step]
            of_products[step, :, size:] = attention.step(step, of_input, saved[-1], weights_grad)
            hidden_grad = torch.mm(of_products[step], weight)
            if direct is not None:
                hidden_grad += direct
        flat = of_products.flatten(0, 1)
        weight_grad = torch.mm(flat.t(), states[:-1].flatten(0, 1))
        of_source = attention.of_source(of_inputs)
        return None, None, of_inputs, weight_grad, flat.sum(0), hidden_grad, cell_grad, *of_source


def attention_weights(
    query: Float[Tensor, "B A"], keys: Float[Tensor, "B S A"], energy: Float[Tensor, "A"], padding: Tensor | None
) -> Float[Tensor, "B S"]:
    """softmax over the source of vᵀ tanh(query + key), 0 where the source has ended."""
    scores = torch.tanh(keys + query[:, None]) @ energy
    return (scores if padding is None else scores.masked_fill(padding, -torch.inf)).softmax(-1)


class AttentionGradients:
    """Gradients of additive attention, step by step; those of the source are summed over steps."""

    def __init__(self, source: list[Tensor], weights: Tensor) -> None:
        self.keys, self.gates, self.energy = source
        self.weights = weights
        self.keys_grad = torch.zeros_like(self.keys)  # without the factor v, which is the same at every step
        self.energy_grad = torch.zeros_like(self.energy)

    def step(self, step: int, gates_grad: Tensor, query: Tensor, weights_grad: Tensor | None) -> Tensor:
        """The gradient of one step's query, (B, A)."""
        weights = self.weights[step]
        grad = torch.bmm(self.gates, gates_grad[:, :, None])[:, :, 0]
        if weights_grad is not None:
            grad += weights_grad
        scores_grad = torch._softmax_backward_data(grad, weights, -1, weights.dtype)
        tanh = torch.tanh_(self.keys + query[:, None])
        self.energy_grad.addmv_(tanh.flatten(0, 1).t(), scores_grad.flatten())
        slope = tanh.square_().neg_().add_(1).mul_(scores_grad[:, :, None])
        self.keys_grad += slope
        return slope.sum(1) * self.energy

    def of_source(self, gates_grad: Float[Tensor, "T B G"]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of keys, gates and v."""
        gates = torch.bmm(self.weights.permute(1, 2, 0), gates_grad.transpose(0, 1))
        return self.keys_grad * self.energy, gates, self.energy_grad


def lstm_step(
    inputs: Tensor, from_state: Tensor, before: Tensor, after: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Writes the cell vector and the hidden vector after one step; returns its gates and tanh of the cell vector."""
    units = before.shape[1]
    gates = inputs + from_state
    gates[:, : 2 * units].sigmoid_()
    gates[:, 2 * units : 3 * units].tanh_()
    gates[:, 3 * units :].sigmoid_()
    input_gate, forget, new, output = gates.chunk(4, -1)
    # Gers et al. 2000, eq. 9 and 11
    torch.mul(forget, before, out=after).addcmul_(input_gate, new)
    squashed = torch.tanh(after).to(gates.dtype)
    torch.mul(output, squashed, out=hidden)
    return gates, squashed


def lstm_backward_step(
    hidden_grad: Tensor,
    cell_grad: Tensor,
    before: Tensor,
    saved: tuple[Tensor, ...],
    of_input: Tensor,
    of_state: Tensor,
) -> Tensor:
    """Writes the gradients of the gates' sums; returns that of the cell vector before."""
    input_gate, forget, new, output = saved[0].chunk(4, -1)
    squashed, units = saved[1], before.shape[1]
    cell_grad = torch.addcmul(cell_grad, hidden_grad * output, 1 - squashed * squashed)
    of_input[:, :units] = cell_grad * new
    of_input[:, units : 2 * units] = cell_grad * before
    both = saved[0][:, : 2 * units]
    of_input[:, : 2 * units] *= both * (1 - both)
    of_input[:, 2 * units : 3 * units] = cell_grad * input_gate * (1 - new * new)
    of_input[:, 3 * units :] = hidden_grad * squashed * output * (1 - output)
    of_state.copy_(of_input)
    return cell_grad * forget


def gru_step(inputs: Tensor, from_state: Tensor, before: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the hidden vector after one step; returns both gates, the new vector and its recurrent part."""
    units = before.shape[1]
    gates = (inputs[:, : 2 * units] + from_state[:, : 2 * units]).sigmoid_()
    reset, update = gates.chunk(2, -1)
    # PyTorch's form: the reset gate acts after the matrix, not before it as in Cho et al. 2014.
    new = torch.addcmul(inputs[:, 2 * units :], reset, from_state[:, 2 * units :]).tanh_()
    torch.lerp(new, before, update, out=hidden)
    return gates, new, from_state[:, 2 * units :]


def gru_backward_step(
    hidden_grad: Tensor, before: Tensor, hidden: Tensor, saved: tuple[Tensor, ...], of_input: Tensor, of_state: Tensor
) -> Tensor:
    """Writes the gradients of the gates' sums; returns what of `hidden_grad` goes to the state before directly."""
    gates, new, recurrent = saved[:3]
    units = before.shape[1]
    reset, update = gates.chunk(2, -1)
    new_grad = hidden_grad * (1 - update) * (1 - new * new)
    of_input[:, :units] = new_grad * recurrent
    of_input[:, units : 2 * units] = hidden_grad * (before - new)
    of_input[:, : 2 * units] *= gates * (1 - gates)
    of_input[:, 2 * units :] = new_grad
    of_state[:, : 2 * units] = of_input[:, : 2 * units]
    of_state[:, 2 * units :] = new_grad * reset
    return hidden_grad * update


def rnn_step(inputs: Tensor, from_state: Tensor, before: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    """Writes the hidden vector after one step."""
    torch.tanh(inputs + from_state, out=hidden)
    return ()


def rnn_backward_step(
    hidden_grad: Tensor, before: Tensor, hidden: Tensor, saved: tuple[Tensor, ...], of_input: Tensor, of_state: Tensor
) -> None:
    """Writes the gradients of the sum."""
    torch.mul(hidden_grad, 1 - hidden * hidden, out=of_input)
    of_state.copy_(of_input)


STEPS: dict[str, Any] = {"gru": gru_step, "rnn": rnn_step}
BACKWARD_STEPS: dict[str, Any] = {"gru": gru_backward_step, "rnn": rnn_backward_step}
