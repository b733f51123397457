"""Units: what each unit of a recurrent layer says over a text, or how far each of its gates is open."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.lens.probes.embeddings import most_varying_columns
from clearstory.lens.probes.x_gates import compute_gates
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.views import Grid
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.text.tokenizers import Tokenizer

STRONG = 0.5
"""A unit that says more than this, or less than its negative, is taken to hold something."""


def unit_activations(model: Any, ids: list[int], layer: int, gate: str | None = None) -> Float[Tensor, "T U"]:
    """The hidden vector of a layer after each token; with `gate`, that gate's units, or what its "memory" holds.

    Raises BadSetting for a layer that is not there, UnknownName for a gate.
    """
    layers = model.layers
    if not -len(layers) <= layer < len(layers):
        raise BadSetting(f"layer is {layer}, and the model has {len(layers)}; give 0 to {len(layers) - 1}")
    if gate is not None:
        values = compute_gates(model, ids, layer)
        if gate not in values:
            raise UnknownName(f"this layer has no gate called '{gate}'; {nearest(gate, values)}")
        return values[gate]
    name = f"layers.{layer % len(layers)}"
    with inference_mode(model), record_activations(model, name) as seen:
        model.forward(TokenBatch.from_sequences([ids], next(model.parameters()).device))
    return seen[name][:, 0]


def activations(
    model: Any, tokenizer: Tokenizer, text: str, *, layer: int = -1, gate: str | None = None, top: int = 48
) -> Grid:
    """The units of one layer over a text, a row for each token; of many, the `top` that change most."""
    read = encode_passage(model, tokenizer, text)
    values = unit_activations(model, list(read.ids), layer, gate).float().cpu()
    shown, said = most_varying_columns(values, top)
    number, opens = layer % len(model.layers), gate not in (None, "new", "memory")
    return Grid(
        title=f"Units of layer {number}" + (f", {gate}" if gate else ""),
        row_labels=read.labels,
        column_labels=tuple(map(str, shown)),
        values=tuple(tuple(row) for row in values[:, shown].double().tolist()),
        unit="openness" if opens else "",
        dots=not opens,
        caption=said if opens else f"{longest_hold_caption(values)} {said}",
    )


def longest_hold_caption(values: Float[Tensor, "T U"]) -> str:
    """Which unit holds on to something longest.

    >>> import torch
    >>> held(torch.tensor([[0.9, 0.1], [0.8, -0.9], [0.7, 0.9]]))
    'Unit 0 holds the same sign, beyond ±0.5, over 3 tokens, longer than any other.'
    """
    signs = (values > STRONG).int() - (values < -STRONG).int()
    runs = signs.abs().clone()
    for at in range(1, len(runs)):
        runs[at] += runs[at - 1] * ((signs[at] == signs[at - 1]) & (signs[at] != 0))
    most = int(runs.max())
    if most < 2:
        return f"No unit holds the same sign, beyond ±{STRONG}, over two tokens."
    unit = int(runs.max(0).values.argmax())
    return f"Unit {unit} holds the same sign, beyond ±{STRONG}, over {most:,} tokens, longer than any other."
