"""Recurrent units: the activations of the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, UnknownName
from clearstory.lens.probes.recurrent_units import activations, compute_gates, longest_hold_caption, unit_activations
from clearstory.models.base import TokenBatch
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

TOKENIZER = train_tokenizer("characters", ["abcdefghijklmnopqrst "])
IDS = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "adaptive"])
def test_units_are_the_output_of_the_layer(name: str) -> None:
    model: Any = MODELS[name]()
    assert torch.equal(unit_activations(model, IDS, -1), model.forward(TokenBatch.from_sequences([IDS]))[0][0])
    view = activations(model, TOKENIZER, "abcab", layer=0, top=4)
    assert len(view.column_labels) == 4
    values = unit_activations(model, TOKENIZER.encode("abcab"), 0)
    shown = [int(label) for label in view.column_labels]
    assert torch.allclose(torch.tensor(view.values), values[:, shown].float())


def test_a_gate_is_shown_by_unit() -> None:
    model: Any = MODELS["lstm"]()
    view = activations(model, TOKENIZER, "abcab", gate="forget")
    values = compute_gates(model, TOKENIZER.encode("abcab"), -1)["forget"]
    assert torch.allclose(torch.tensor(view.values), values.float())
    assert view.title == "Units of layer 1, forget"
    with pytest.raises(UnknownName, match="no gate called 'forgot'"):
        activations(model, TOKENIZER, "abcab", gate="forgot")
    with pytest.raises(BadSetting, match="layer is 2"):
        activations(model, TOKENIZER, "abcab", layer=2)


def test_the_longest_hold_is_counted_in_tokens() -> None:
    # Unit 0 is beyond 0.5 for two tokens, changes its sign, and is beyond for three.
    values = torch.tensor([[0.9], [0.6], [-0.6], [-0.9], [-0.7], [0.1]])
    assert longest_hold_caption(values).startswith("Unit 0 keeps the same sign, beyond ±0.5, over 3 tokens")
    assert longest_hold_caption(values[:1]) == "No unit keeps the same sign, beyond ±0.5, over two tokens."
