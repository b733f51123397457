"""Recurrent models: equal to PyTorch's modules; parameter counts; the adaptive softmax by hand."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from clearstory.errors import BadSetting, VocabularyMismatch
from clearstory.models import cross_entropy
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.families import PRESETS, scale_config
from clearstory.models.recurrent.cells import CellState, RecurrentLayer
from clearstory.models.recurrent.config import RecurrentConfig, parameter_count
from clearstory.models.recurrent.model import Recurrent
from tiny import TINY_LSTM, VOCAB, shaken

CELLS: list[Any] = ["rnn", "gru", "lstm"]
IDS = torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(7))


def torchs(layer: RecurrentLayer) -> Any:
    """torch's own module with the weights of a layer."""
    kinds: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    module = kinds[layer.cell](layer.input.in_features, layer.recurrent.in_features).double()
    module.load_state_dict(
        {
            "weight_ih_l0": layer.input.weight, "weight_hh_l0": layer.recurrent.weight,
            "bias_ih_l0": layer.input.bias, "bias_hh_l0": layer.recurrent.bias,
        }
    )  # fmt: skip
    return module


def begun(cell: str, rows: int, units: int) -> CellState:
    return CellState(torch.randn(rows, units).double(), torch.randn(rows, units).double() if cell == "lstm" else None)


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_equals_torchs_module_forward_and_backward(cell: Any) -> None:
    layer = RecurrentLayer(cell, 5, 7, 0.0).double()
    x, kept = torch.randn(6, 3, 5).double(), begun(cell, 3, 7)
    first: Any = kept.hidden[None] if kept.cell is None else (kept.hidden[None], kept.cell[None])
    wanted, last = (module := torchs(layer))(x, first)
    out, after = layer(x, kept, None)
    assert_close(out, wanted)
    assert_close(after.hidden, (last if kept.cell is None else last[0])[0])
    wanted.square().sum().backward()
    out.square().sum().backward()
    assert_close(layer.recurrent.weight.grad, module.weight_hh_l0.grad)
    assert_close(layer.input.bias.grad, module.bias_ih_l0.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_single_steps_equal_the_kernels(cell: Any) -> None:
    layer = RecurrentLayer(cell, 5, 7, 0.0).double()
    x, kept = torch.randn(6, 3, 5).double(), begun(cell, 3, 7)
    for lengths in (None, torch.tensor([6, 2, 4]), torch.tensor([0, 6, 1])):
        out, after = layer(x, kept, lengths)
        ours, then = layer.forward_stepwise(x, kept, lengths)
        assert_close(then.hidden, after.hidden)
        if after.cell is not None:
            assert_close(then.cell, after.cell)
        for row, many in enumerate([6, 6, 6] if lengths is None else lengths.tolist()):
            assert_close(ours[:many, row], out[:many, row])


def test_a_sequence_without_new_tokens_keeps_its_state() -> None:
    model = shaken(TINY_LSTM)
    _, memory = model.forward(TokenBatch(IDS), model.init_state(3))  # type: ignore[operator]
    _, after = model.forward(TokenBatch(IDS, torch.tensor([2, 0, 9])), memory)  # type: ignore[operator]
    assert after.lengths == [11, 9, 18]
    for layer in range(2):
        assert torch.equal(after.hidden[layer][1], memory.hidden[layer][1])
        assert torch.equal(after.cells[layer][1], memory.cells[layer][1])


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "awd-lstm"])
def test_parameter_count_equals_the_built_models(name: str) -> None:
    preset: Any = PRESETS[name]
    for config in (preset, replace(preset, tie_embeddings=False), replace(preset, cutoffs=(100, 2000))):
        assert count_parameters(build(config, device="meta")) == parameter_count(config)


def test_awd_lstm_has_its_published_size() -> None:
    # Merity et al. 2018, table 2: 33 million with the 33,278 words of WikiText-2. Their linear decoder adds a bias.
    assert round(parameter_count(PRESETS["awd-lstm"]) / 1e6) in (33, 34)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [100_000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("cell", CELLS)
def test_scaling_reaches_the_target_size_and_keeps_the_proportions(cell: Any, target: int) -> None:
    found = scale_config(RecurrentConfig(vocab=500, cell=cell, width=256, hidden_size=512, layers=2), target)
    assert parameter_count(found) == pytest.approx(target, rel=0.2)
    assert found.hidden_size == pytest.approx(2 * found.width, rel=0.1)


def test_variational_dropout_drops_the_same_units_at_every_step() -> None:
    model = Recurrent(replace(TINY_LSTM, dropout=0.5)).train()
    hidden, _ = model.forward(TokenBatch(IDS))
    dropped = hidden == 0
    assert dropped.any()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])  # but other units in another sequence


def test_dropped_tokens_are_zero_everywhere() -> None:
    model = Recurrent(replace(TINY_LSTM, dropout_embedding=0.5)).train()
    ids = torch.arange(VOCAB).repeat(2)[:, None]
    missing = (model.embed_tokens(ids) == 0).all(-1)[:, 0]
    assert 0 < missing.sum() < 2 * VOCAB
    assert torch.equal(missing[:VOCAB], missing[VOCAB:])


@pytest.mark.parametrize("setting", ["dropout", "dropout_input", "dropout_hidden", "dropout_embedding", "weight_drop"])
def test_every_regulariser_acts_in_training_only(setting: str) -> None:
    plain, model = (build(config, seed=1) for config in (TINY_LSTM, replace(TINY_LSTM, **{setting: 0.5})))
    assert not torch.equal(model.forward(TokenBatch(IDS))[0], plain.forward(TokenBatch(IDS))[0])
    assert torch.equal(model.eval().forward(TokenBatch(IDS))[0], plain.eval().forward(TokenBatch(IDS))[0])


def test_a_dropped_weight_has_no_gradient() -> None:
    layer = RecurrentLayer("lstm", 5, 7, 0.5).train()
    out, _ = layer(torch.randn(6, 3, 5), CellState(torch.zeros(3, 7), torch.zeros(3, 7)), None)
    out.sum().backward()
    assert layer.recurrent.weight.grad is not None
    assert 0.3 < (layer.recurrent.weight.grad == 0).double().mean() < 0.7


def test_the_adaptive_softmax_by_hand() -> None:
    # All vectors zero but one cluster's: the head has 2 tokens and 2 clusters, e^0 + e^0 + e^log(2) + e^0 = 5.
    weight, hidden = torch.zeros(9, 1), torch.ones(1, 3, 1)
    names = torch.tensor([[log(2)], [0.0]])
    targets = torch.tensor([[1, 2, 8]])  # head; the first of 3 tokens in cluster one; the last of 4 in cluster two
    nats = cross_entropy.adaptive_cross_entropy(hidden, weight, targets, (2, 5), names)
    # 1/5; 2/5 · 1/3; 1/5 · 1/4
    assert_close(nats, torch.tensor([[log(5), log(7.5), log(20)]]))


def test_the_adaptive_softmax_has_the_gradients_of_the_whole_distribution() -> None:
    model = shaken(replace(TINY_LSTM, cutoffs=(5, 12)))
    targets = IDS.roll(-1, 1)
    model.token_nll(TokenBatch(IDS), targets)[0].sum().backward()  # type: ignore[operator]
    quick = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    logs = model.logits(model.forward(TokenBatch(IDS))[0])  # type: ignore[operator]
    (-logs.gather(-1, targets[..., None])).sum().backward()
    for one, other in zip(quick, (weight.grad for weight in model.parameters()), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cutoffs": (5, 5)}, "increasing numbers of tokens below the vocabulary size, 23"),
        ({"cutoffs": (5, 23)}, "increasing numbers"),
        ({"layers": 1}, "model.hidden_size is 10 and model.width is 6"),
        ({"hidden_size": 0}, "model.hidden_size is 0"),
        ({"weight_drop": 1.0}, "model.weight_drop is 1.0"),
    ],
)
def test_invalid_configs_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        replace(TINY_LSTM, **changes)


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(VocabularyMismatch, match="token id 23 lies outside"):
        Recurrent(TINY_LSTM).forward(TokenBatch(torch.tensor([[23]])))


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_token_has_the_dtype_of_a_sequence(cell: Any) -> None:
    model: Any = build(replace(TINY_LSTM, cell=cell), seed=1).eval()
    model.compute_dtype = torch.bfloat16
    with torch.no_grad():
        whole, _ = model.forward(TokenBatch(IDS))
        _, state = model.forward(TokenBatch(IDS[:, :-1]), model.init_state(3))
        last, _ = model.forward(TokenBatch(IDS[:, -1:]), state)
    assert last.dtype == whole.dtype == torch.bfloat16
    assert_close(last[:, 0], whole[:, -1], rtol=0, atol=0.02)
