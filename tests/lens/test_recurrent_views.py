"""Gates and gradient reach: what is shown is what the model computes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.probes.gradient_reach import gradient_norms_by_distance, gradient_reach, split_passages
from clearstory.lens.probes.recurrent_units import compute_gates, gate_activations
from clearstory.lens.registry import check_supported, supported_views
from clearstory.models.base import TokenBatch
from clearstory.models.inference_model import inference_model
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
LETTERS = train_tokenizer("characters", ["abcdefghij"])


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_gates_give_the_state_that_the_model_computes(name: str) -> None:
    model: Any = MODELS[name]()
    _, memory = model.forward(TokenBatch.from_sequences([IDS]), model.init_state())
    for layer in range(len(model.layers)):
        seen = compute_gates(model, IDS, layer)
        kept = memory.cells[layer] if memory.cells else memory.hidden[layer]
        assert_close(seen["memory"][-1], kept[0])
    # Gers et al. 2000, eq. 9: what is remembered is what was kept of it, and what was let in
    if name == "lstm":
        before, now = seen["memory"][:-1], seen["memory"][1:]
        assert_close(now, seen["forget"][1:] * before + seen["input"][1:] * seen["new"][1:])


def test_gates_are_shown_as_means_over_units() -> None:
    view = gate_activations(MODELS["lstm"](), LETTERS, "abca", layer=0)
    assert view.row_labels == ("a", "b", "c", "a")
    assert view.column_labels == ("input", "forget", "output", "new", "memory")
    assert all(0 < value < 1 for row in view.values for value in row[:3])
    assert "half-life" in (view.caption or "")
    assert "no gates" in (gate_activations(MODELS["rnn"](), LETTERS, "abc").caption or "")
    with pytest.raises(BadSetting, match="layer is 7, and the model has 2"):
        gate_activations(MODELS["gru"](), LETTERS, "ab", layer=7)
    with pytest.raises(BadInput, match="the text is empty"):
        gate_activations(MODELS["gru"](), LETTERS, "")


def test_a_transformer_has_no_gates_and_says_what_it_can_show() -> None:
    with pytest.raises(
        CannotDo, match=r"needs a recurrent state.*it supports .*next-token, surprisal, generation, attention"
    ):
        check_supported("gates", MODELS["gpt2"]())


# Untied ones: else moving a word's vector would move its logit as well.
@pytest.mark.parametrize("name", ["gru", "placeless", "clear"])
def test_the_gradient_equals_finite_differences(name: str) -> None:
    model: Any = MODELS[name]()
    ids = IDS * 2
    found = gradient_norms_by_distance(model, ids, targets=1)
    table = model.embedding.weight.data
    whole = len(ids) - 1
    # The token k back gets a vector of its own: an id that occurs nowhere else, moved a little in each direction.
    for back in (0, 3):
        position, spare = whole - 1 - back, 11
        table[spare] = table[ids[position]]
        row = [*ids[:position], spare, *ids[position + 1 : -1]]
        slopes = []
        for unit in range(table.shape[1]):
            ends = []
            for step in (1e-5, -1e-5):
                table[spare, unit] += step
                nats, _ = model.token_nll(TokenBatch.from_sequences([row]), torch.tensor([ids[1:]]))
                ends.append(float(nats[0, -1].detach()))
                table[spare, unit] -= step
            slopes.append((ends[0] - ends[1]) / 2e-5)
        assert float(found[back]) == pytest.approx(torch.tensor(slopes).norm().item(), rel=1e-5)


def test_gradient_reach_is_a_curve_over_distances() -> None:
    view = gradient_reach(MODELS["lstm"](), LETTERS, "abcdefghij" * 6)
    (line,) = view.lines
    assert line.x == tuple(range(1, 45))
    assert all(value > 0 for value in line.y)
    with pytest.raises(BadInput, match="the text has 3 tokens"):
        gradient_reach(MODELS["lstm"](), LETTERS, "abc")


def test_gradient_reach_states_what_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["lstm"]()
    short = gradient_reach(model, LETTERS, "abcdefghij" * 6)
    assert "Mean over the last 16 positions of one passage of 59 tokens; " in str(short.caption)
    text = "".join(random.Random(0).choices("abcdefghij", k=250))
    monkeypatch.setattr("clearstory.lens.probes.gradient_reach.PASSAGE_TOKENS", 48)
    view = gradient_reach(model, LETTERS, text)
    # 249 inputs hold five passages of 48, with four targets each.
    assert "Mean over 20 positions: 4 in each of 5 passages of 48 tokens of one text; " in str(view.caption)
    assert "These values are for this trained model and this text" in str(view.caption)
    ids = LETTERS.encode(text)
    passages = split_passages(ids, 48)
    assert all(len(passage) == 49 for passage in passages)
    assert (passages[0], passages[-1]) == (ids[:49], ids[-49:])
    means = torch.stack([gradient_norms_by_distance(model, passage, 4) for passage in passages])
    (line,), band = view.lines, view.band
    assert band is not None
    assert line.y == pytest.approx(means.mean(0).tolist())
    assert all(low <= y <= high for low, y, high in zip(band.low, line.y, band.high, strict=True))
    share = float(means[:, 15].sum() / means[:, 0].sum())
    assert f"At 16 tokens back the gradient is {share:.2g} of the nearest input's (" in str(view.caption)


def test_gradient_reach_is_not_offered_for_a_model_without_gradients() -> None:
    model = inference_model(MODELS["lstm"](), "int8")
    assert "gradient-reach" in supported_views(MODELS["lstm"]())
    assert "gradient-reach" not in supported_views(model)
    with pytest.raises(CannotDo, match="has no gradients; use a Transformer, a recurrent model or an HMM; it supports"):
        check_supported("gradient-reach", model)
