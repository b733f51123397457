"""Units of a recurrent layer over a text: its hidden vector after each token, or how far its gates are open.

Gers et al. 2000 (LSTM); Cho et al. 2014 (GRU).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.lens.hooks.activations import model_device, record_activations, unwrap_model
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.embeddings import most_varying_columns
from clearstory.lens.views import Grid
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.prompts import PromptOptions
from clearstory.models.recurrent.cells import CellState
from clearstory.models.recurrent.model import Recurrent
from clearstory.text.tokenizers import Tokenizer

STRONG = 0.5
"""Absolute value from which on an activation counts as held."""


def gate_activations(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int = -1,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """Mean activation of each gate over a layer's units at each token: 0 is closed, 1 is open.

    "new" and "memory", which can be negative, are shown as mean absolute values.
    """
    passage = encode_passage(model, tokenizer, text, prompt=prompt)
    values = compute_gates(model, list(passage.ids), layer)
    means = torch.stack([each.abs().mean(-1) for each in values.values()], -1).double()
    return Grid(
        title=f"Gates of layer {resolve_layer(unwrap_model(model), layer)}, mean over "
        f"{next(iter(values.values())).shape[-1]} units",
        row_labels=passage.pieces,
        column_labels=tuple(values),
        values=tuple(tuple(row) for row in means.tolist()),
        unit="openness",
        caption=half_life_caption(values),
    )


def activations(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int = -1,
    gate: str | None = None,
    top: int = 48,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """Activations of one layer's units, a row for each token; of many units the `top` with the largest variance.

    `gate` selects a gate of the units, such as forget, or "memory".
    """
    passage = encode_passage(model, tokenizer, text, prompt=prompt)
    values = unit_activations(model, list(passage.ids), layer, gate).float().cpu()
    columns, caption = most_varying_columns(values, top)
    is_gate = gate not in (None, "new", "memory")
    return Grid(
        title=f"Units of layer {resolve_layer(unwrap_model(model), layer)}" + (f", {gate}" if gate else ""),
        row_labels=passage.labels,
        column_labels=tuple(map(str, columns)),
        values=tuple(tuple(row) for row in values[:, columns].double().tolist()),
        unit="openness" if is_gate else "",
        dots=not is_gate,
        caption=caption if is_gate else f"{longest_hold_caption(values)} {caption}",
    )


def resolve_layer(model: Recurrent, layer: int) -> int:
    """A layer's number; negative ones count from the last. Raises BadSetting for a layer that does not exist."""
    count = len(model.layers)
    if not -count <= layer < count:
        raise BadSetting(f"layer is {layer}, and the model has {count}; give 0 to {count - 1}")
    return layer % count


def compute_gates(model: LanguageModel, ids: list[int], layer: int) -> dict[str, Float[Tensor, "T U"]]:
    """Every gate of a layer at every token, and under "memory" the cell state of an LSTM or the hidden vector.

    They are computed token by token from the layer's actual input. Raises BadSetting for a layer that does not exist.
    """
    network: Any = unwrap_model(model)
    cell: Any = network.layers[resolve_layer(network, layer)]
    inputs: dict[str, Any] = {}
    gates: dict[str, list[Tensor]] = {}
    handle = cell.register_forward_pre_hook(lambda _, args: inputs.update(x=args[0], state=args[1]))
    with inference_mode(model):
        try:
            model.forward(TokenBatch.from_sequences([ids], model_device(model)))
        finally:
            handle.remove()
        state: CellState = inputs["state"]
        for projected in cell.input(inputs["x"]):
            opened, state = cell.gates(projected, state), cell.step(projected, state)
            for name, value in {**opened, "memory": state.hidden if state.cell is None else state.cell}.items():
                gates.setdefault(name, []).append(value[0])
    return {name: torch.stack(values) for name, values in gates.items()}


def unit_activations(model: LanguageModel, ids: list[int], layer: int, gate: str | None = None) -> Float[Tensor, "T U"]:
    """The hidden vector of a layer after each token; with `gate`, that gate, or "memory".

    Raises BadSetting for a layer that does not exist, UnknownName for an unknown gate.
    """
    number = resolve_layer(unwrap_model(model), layer)
    if gate is not None:
        values = compute_gates(model, ids, layer)
        if gate not in values:
            raise UnknownName(f"this layer has no gate called '{gate}'; {nearest(gate, values)}")
        return values[gate]
    name = f"layers.{number}"
    with inference_mode(model), record_activations(model, name) as recorded:
        model.forward(TokenBatch.from_sequences([ids], model_device(model)))
    return recorded[name][:, 0]


def half_life_caption(values: dict[str, Float[Tensor, "T U"]]) -> str:
    """The mean of the gate that keeps the state, and half-lives: a unit kept by f per token halves in ln 2 / -ln f.

    >>> half_life_caption({"forget": torch.full((3, 4), 0.5), "memory": torch.zeros(3, 4)})
    'The forget gate keeps 50% of the state per token on average; half of the units have a half-life of 1.0 ...'
    """
    name = "forget" if "forget" in values else "update"
    if name not in values:
        return "A plain tanh layer has no gates: its state passes through the recurrent matrix at every token."
    kept = values[name].double()
    log_mean = kept.clamp(1e-6, 1 - 1e-6).log().mean(0)
    half_lives = math.log(2) / -log_mean
    return (
        f"The {name} gate keeps {float(kept.mean()):.0%} of the state per token on average; half of the units have a "
        f"half-life of {float(half_lives.median()):.1f} tokens or more, at most {float(half_lives.max()):.0f}."
    )


def longest_hold_caption(values: Float[Tensor, "T U"]) -> str:
    """The unit that keeps the same sign over most tokens.

    >>> import torch
    >>> longest_hold_caption(torch.tensor([[0.9, 0.1], [0.8, -0.9], [0.7, 0.9]]))
    'Unit 0 keeps the same sign, beyond ±0.5, over 3 tokens, more than any other.'
    """
    signs = (values > STRONG).int() - (values < -STRONG).int()
    lengths = signs.abs().clone()
    for row in range(1, len(lengths)):
        lengths[row] += lengths[row - 1] * ((signs[row] == signs[row - 1]) & (signs[row] != 0))
    most = int(lengths.max())
    if most < 2:
        return f"No unit keeps the same sign, beyond ±{STRONG}, over two tokens."
    unit = int(lengths.max(0).values.argmax())
    return f"Unit {unit} keeps the same sign, beyond ±{STRONG}, over {most:,} tokens, more than any other."
