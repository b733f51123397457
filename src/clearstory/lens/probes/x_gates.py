"""Gates: what a recurrent layer lets in, keeps and lets out at each token. Gers et al. 2000; Cho et al. 2014."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.views import Grid
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.models.recurrent.cells import CellState


def compute_gates(model: Any, ids: list[int], layer: int) -> dict[str, Float[Tensor, "T U"]]:
    """Every gate of a layer at every token, and under "memory" what the layer remembers after it.

    They are computed token by token from the very input that the layer was given, by the arithmetic of its kernels.
    """
    layers = model.layers
    if not -len(layers) <= layer < len(layers):
        raise BadSetting(f"layer is {layer}, and the model has {len(layers)}; give 0 to {len(layers) - 1}")
    cell = layers[layer]
    seen: dict[str, Any] = {}
    found: dict[str, list[Tensor]] = {}
    handle = cell.register_forward_pre_hook(lambda _, args: seen.update(x=args[0], before=args[1]))
    with inference_mode(model):
        try:
            model.forward(TokenBatch.from_sequences([ids], next(model.parameters()).device))
        finally:
            handle.remove()
        kept: CellState = seen["before"]
        for given in cell.input(seen["x"]):
            gates, kept = cell.gates(given, kept), cell.step(given, kept)
            for name, value in {**gates, "memory": kept.hidden if kept.cell is None else kept.cell}.items():
                found.setdefault(name, []).append(value[0])
    return {name: torch.stack(values) for name, values in found.items()}


def gate_activations(model: Any, tokenizer: Any, text: str, *, layer: int = -1) -> Grid:
    """How far each gate of a layer is open at each token, as a mean over its units: 0 is shut, 1 is open.

    "new" and "memory", which may be negative, are shown as mean magnitudes.
    """
    ids = tokenizer.encode(text)
    if not ids:
        raise BadSetting("the text is empty; give a few words to look at")
    values = compute_gates(model, ids, layer)
    means = torch.stack([each.abs().mean(-1) for each in values.values()], -1).double()
    number = layer if layer >= 0 else layer + len(model.layers)
    return Grid(
        title=f"Gates of layer {number}, mean over {next(iter(values.values())).shape[-1]} units",
        row_labels=tuple(tokenizer.display_token(id) for id in ids),
        column_labels=tuple(values),
        values=tuple(tuple(row) for row in means.tolist()),
        unit="openness",
        caption=look(values),
    )


def look(values: dict[str, Float[Tensor, "T U"]]) -> str:
    """What the gate that keeps says of how long is remembered: a unit kept by f at every token halves in ln 2 / -ln f.

    >>> look({"forget": torch.full((3, 4), 0.5), "memory": torch.zeros(3, 4)})
    'The forget gate keeps 50% of the memory from one token to the next on average; ... a half-life of 1.0 ...'
    """
    name = "forget" if "forget" in values else "update"
    if name not in values:
        return "A plain tanh layer has no gates: all that it remembers passes through its matrix at every token."
    kept = values[name].double()
    typical = kept.clamp(1e-6, 1 - 1e-6).log().mean(0)
    lives = math.log(2) / -typical
    return (
        f"The {name} gate keeps {float(kept.mean()):.0%} of the memory from one token to the next on average; half of "
        f"the units have a half-life of {float(lives.median()):.1f} tokens or more, at most {float(lives.max()):.0f}."
    )
