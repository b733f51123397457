"""Models with norms after sublayers and two kinds of layers: what is shown, and what is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import CannotDo
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.attention_sites import attention_weights
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.probes.architecture import architecture
from clearstory.lens.probes.logit_attribution import attribute_logits, strongest_neurons
from clearstory.lens.probes.qk_circuit import attention_site
from clearstory.lens.probes.residual_stream import lens_predictions
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, shaken

CONFIG = replace(
    TINY_CLEAR, norm="rms_unit_offset", sandwich_norm=True, embed_scale=True, sliding_window=3, global_interval=2,
    local_rope_theta=100.0,
)  # fmt: skip
IDS = (3, 5, 7, 2, 9, 4, 6, 8)


@pytest.fixture(scope="module")
def model() -> Any:
    return shaken(CONFIG)


@pytest.fixture(scope="module")
def passage() -> Passage:
    return Passage(IDS, tuple(map(str, IDS)), (), ())


def test_sublayers_add_up_to_the_residual_stream(model: Any, passage: Passage) -> None:
    names = ("embedding_output", "blocks.*.attention", "blocks.*.feed_forward", "blocks.1")
    with torch.no_grad(), record_activations(model, *names) as seen:
        passage.forward(model)
        added = [seen[f"blocks.{layer}.{kind}"] for layer in (0, 1) for kind in ("attention", "feed_forward")]
        assert torch.allclose(seen["embedding_output"] + sum(added), seen["blocks.1"])


def test_attention_of_local_layers_ends_at_the_window(model: Any, passage: Passage) -> None:
    local, everywhere = (attention_weights(model, passage, attention_site(model, layer)) for layer in (0, 1))
    assert float(local[..., 7, :5].abs().max()) == 0
    assert float(everywhere[..., 7, 0].min()) > 0


def test_the_logit_lens_and_the_diagram_are_shown(model: Any, passage: Passage) -> None:
    assert lens_predictions(model, passage).rank[-1].tolist() == [1] * len(IDS)
    figure = architecture(model, train_tokenizer("characters", ["abcdefghij"]), "abc")
    assert any("window 3, causal every 2 layers" in str(box) for box in figure.boxes)


def test_parts_of_normalised_outputs_are_refused(model: Any, passage: Passage) -> None:
    for show in (attribute_logits, strongest_neurons):
        with pytest.raises(CannotDo, match="normalises the output of every sublayer"):
            show(model, passage)
