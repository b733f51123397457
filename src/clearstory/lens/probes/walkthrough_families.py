"""Walkthrough of models without a residual stream: recurrent networks, hidden Markov models, n-gram models, mixtures.

The same language of shapes as for a Transformer: quantities at each token, one part opened, the next token's logits.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from clearstory.lens.hooks.activations import model_device, record_activations, unwrap_model
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.probes.hmm_states import forward_backward, state_names
from clearstory.lens.probes.logit_summary import summary_arrays
from clearstory.lens.probes.ngram_counts import find_order, matching_contexts
from clearstory.lens.probes.recurrent_units import resolve_layer
from clearstory.lens.probes.token_groups import TokenGroups
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.hmm.model import HMM
from clearstory.models.mixture.model import Mixture
from clearstory.models.ngram.model import NGram
from clearstory.models.recurrent.cells import CellState

MAX_UNITS, MAX_STATES, SEEN_TOKENS = 32, 16, 8
"""Units of a recurrent layer, states of an HMM, and tokens after an n-gram model's context that are returned."""


def recurrent_walkthrough(
    model: LanguageModel, passage: Passage, layer: int | None, rows: TokenGroups
) -> dict[str, Any]:
    """Of a recurrent model: `layer.0` … (R, K) the hidden vector of each layer after each token in evenly spaced units,
    `embedding` (R, K), `lengths` (N + 1, R); of the opened layer, the last by default, `gate.NAME` (R, K) of every gate
    and of its memory; and the next token's logits.
    """
    network: Any = unwrap_model(model)
    number = resolve_layer(network, -1 if layer is None else layer)
    names = ["embedding", *(f"layers.{index}" for index in range(len(network.layers)))]
    ids = TokenBatch.from_sequences([passage.ids], model_device(model))
    with inference_mode(model), record_activations(model, *names) as recorded:
        hidden, _ = model.forward(ids)
        logits = model.logits(hidden[0, -1])
        gates = layer_gates(network, number, recorded[names[number]])
    values = {name: recorded[name][:, 0] for name in names}
    result: dict[str, Any] = {
        name.replace("layers.", "layer."): values[name][rows.last][:, shown_units(values[name].shape[-1])]
        for name in names
    }
    units = shown_units(network.config.units[number])
    result |= {f"gate.{name}": value[rows.last][:, units] for name, value in gates.items()}
    result["lengths"] = torch.stack([values[name][rows.last].double().norm(dim=-1) for name in names])
    return result | {
        "kind": "recurrent",
        "opened": {"layer": number},
        "gates": list(gates),
        "units": units,
        "groups": [list(span) for span in rows.spans],
        **summary_arrays(logits),
    }


def layer_gates(network: Any, layer: int, below: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every gate of a layer at every token, and its memory, (T, U), from the recorded input (T, 1, W) of the layer."""
    cell, state = network.layers[layer], network.init_state(1)
    current = CellState(state.hidden[layer], state.cells[layer] if state.cells else None)
    gates: dict[str, list[torch.Tensor]] = {}
    for projected in cell.input(below):
        opened, current = cell.gates(projected, current), cell.step(projected, current)
        for name, value in {**opened, "memory": current.hidden if current.cell is None else current.cell}.items():
            gates.setdefault(name, []).append(value[0])
    return {name: torch.stack(values) for name, values in gates.items()}


def shown_units(count: int) -> list[int]:
    """At most `MAX_UNITS` units, evenly spaced, the same for all texts."""
    shown = min(count, MAX_UNITS)
    return [count * index // shown for index in range(shown)]


def count_walkthrough(model: LanguageModel, passage: Passage, rows: TokenGroups) -> dict[str, Any]:
    """Of a model that is fitted by counting or EM, or of a mixture: what gave each token its probability, and the next
    token's logits.
    """
    with inference_mode(model):
        hidden, _ = model.forward(TokenBatch.from_sequences([passage.ids], model_device(model)))
        logits = model.logits(hidden[0, -1])
    if Capability.EXPERTS in model.capabilities:
        parts = mixture_quantities(cast(Mixture, unwrap_model(model)), passage)
    elif Capability.HMM_STATES in model.capabilities:
        parts = hmm_quantities(cast(HMM, unwrap_model(model)), passage, rows)
    else:
        parts = ngram_quantities(cast(NGram, unwrap_model(model)), passage, hidden[0].long().tolist())
    return parts | {"groups": [list(span) for span in rows.spans], **summary_arrays(logits)}


def hmm_quantities(model: HMM, passage: Passage, rows: TokenGroups) -> dict[str, Any]:
    """`forward`, `backward` and `posterior` (R, S) of the S states with the largest posterior over the text, `path`
    (R,) of the Viterbi algorithm in numbers of the model's states, `transition` (S, S).
    """
    with inference_mode(model):
        chain = model.probabilities()
        trellis = forward_backward(chain, torch.tensor(passage.ids, device=chain.initial.device))
    mass = trellis.posterior.sum(0)
    states = sorted(mass.argsort(descending=True, stable=True)[:MAX_STATES].tolist())
    names = state_names(model.config, len(mass))
    return {
        "kind": "hmm",
        "states": states,
        "state_names": [names[state] for state in states],
        "forward": trellis.forward[rows.last][:, states],
        "backward": trellis.backward[rows.last][:, states],
        "posterior": trellis.posterior[rows.last][:, states],
        "path": trellis.path[rows.last].int(),
        "transition": chain.transition[states][:, states],
    }


def ngram_quantities(model: NGram, passage: Passage, contexts: list[list[int]]) -> dict[str, Any]:
    """For each token after the first the `orders` of the n-gram that its probability comes from with its `counts`, and
    for the end of the text the `contexts` in the tables, the longest first, with the tokens counted after each.
    """
    with inference_mode(model):
        found = [find_order(model, rows, id) for rows, id in zip(contexts, passage.ids[1:], strict=False)]
    return {
        "kind": "ngram",
        "orders": [order for order, _, _ in found],
        "counts": [count for _, count, _ in found],
        "contexts": [
            {
                "order": each.order,
                "ids": list(each.ids),
                "backoff": each.backoff,
                "total": each.total,
                "seen": [
                    {"id": one.id, "count": one.count, "probability": one.probability}
                    for one in each.seen[:SEEN_TOKENS]
                ],
            }
            for each in matching_contexts(model, list(passage.ids))
        ],
    }


def mixture_quantities(model: Mixture, passage: Passage) -> dict[str, Any]:
    """`weights` and `probabilities` (T − 1, E): for each token after the first, the weight of each component and the
    probability that it gave the token.
    """
    ids = torch.tensor([passage.ids], device=model.device)
    names = list(model.component_names)
    if len(passage.ids) == 1:
        empty = torch.zeros(0, len(names))
        return {"kind": "mixture", "components": names, "weights": empty, "probabilities": empty}
    with inference_mode(model):
        log_probs, features, possible, _ = model.component_log_probs(ids[:, :-1], ids[:, 1:], model.init_state(1))
        weights = model.gate(features, possible).double().exp()[0]
    return {"kind": "mixture", "components": names, "weights": weights, "probabilities": log_probs.double().exp()[0]}
