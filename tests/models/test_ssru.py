"""SSRU: the recurrence equals Kim et al. 2019 step by step, in training, with a state, and through a whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadSetting, CannotDo
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.architecture import architecture
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.batched_decoding import can_batch
from clearstory.models.transformer.sizing import parameter_count
from clearstory.models.transformer.ssru import SSRU, scan
from clearstory.recipes.planning.parameter_groups import classify_parameter
from tiny import TINY_SSRU, shaken


def cell_by_cell(cell: SSRU, x: np.ndarray[Any, Any], state: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The paper's equations for one sequence, (T, W)."""
    weight, gate, bias = (each.detach().numpy() for each in (cell.input.weight, cell.forget.weight, cell.forget.bias))
    outputs = []
    for each in x:
        forget = 1 / (1 + np.exp(-(gate @ each + bias)))
        state = forget * state + (1 - forget) * (weight @ each)
        outputs.append(np.maximum(state, 0))
    return np.stack(outputs)


def random_cell() -> SSRU:
    cell = SSRU(TINY_SSRU).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return cell


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_the_recurrence_is_the_papers(count: int) -> None:
    cell = random_cell()
    x = torch.randn(2, count, 16, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    for own, found in zip(x, cell(x), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), cell_by_cell(cell, own.numpy(), np.zeros(16)), atol=1e-12)


def test_cells_continue_and_padding_does_not_change_them() -> None:
    cell = random_cell()
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    before = torch.randn(3, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    after, new = before.clone(), [5, 2, 0]
    with torch.no_grad():
        found = cell(x, list(zip(after.unbind(), new, strict=True)))
    for row, count in enumerate(new[:2]):
        expected = cell_by_cell(cell, x[row, :count].numpy(), before[row].numpy())
        np.testing.assert_allclose(found[row, :count].numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(np.maximum(after[row].numpy(), 0), expected[-1], atol=1e-12)
    assert torch.equal(after[2], before[2])


def test_gradients_of_the_scan() -> None:
    generator = torch.Generator().manual_seed(4)
    given = [torch.rand(2, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(scan, given)


def test_parameters_are_counted_and_named() -> None:
    model = shaken(TINY_SSRU)
    assert sum(each.numel() for each in model.parameters()) == parameter_count(TINY_SSRU)
    names = [name for name, _ in model.named_parameters() if ".attention." in name and name.startswith("decoder")]
    assert {name.rpartition(".attention.")[2] for name in names} == {"input.weight", "forget.weight", "forget.bias"}
    assert {classify_parameter(name)[0] for name in names} == {"cells"}


def test_what_such_a_model_has_and_has_not(tmp_path: Path) -> None:
    model: Any = shaken(TINY_SSRU)
    assert not {Capability.ATTENTION, Capability.HIDDEN_STATES} & model.capabilities
    assert not can_batch(model)
    assert "SSRU" in str(architecture(model, None, ""))
    with pytest.raises(BadSetting, match="decoder_autoregression"):
        replace(TINY_SSRU, architecture="decoder", decoder_layers=0, decoder_start_token_id=None, unembed_bias=False)
    save_model(tmp_path / "saved", model.float(), None, ModelCard())
    again = open_model(tmp_path / "saved").model
    assert again.config == TINY_SSRU
    tokens, source = TokenBatch(torch.tensor([[0, 3, 4]])), TokenBatch(torch.tensor([[5, 6]]))
    assert torch.equal(model.forward(tokens, source=source)[0], again.forward(tokens, source=source)[0])
    with pytest.raises(CannotDo, match="ssru"):
        clearstory.convert(tmp_path / "saved", tmp_path / "onnx", to="onnx")


def test_training_and_translation(tmp_path: Path) -> None:
    words = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier"}
    lines = [f"{a} {b}\t{words[a]} {words[b]}\n" for a in words for b in words]
    (tmp_path / "pairs.tsv").write_text("".join(lines * 4), encoding="utf-8")
    sizes = {"width": 32, "layers": 1, "heads": 2, "context": 24, "decoder_autoregression": "ssru"}
    made = clearstory.train(
        tmp_path / "pairs.tsv", model={"name": "clear-translate", **sizes}, tokenizer="bpe:270", steps=6,
        out=tmp_path / "run", training={"batch_size": 8, "compile": "off"}, data={"validation": 0.2},
    )  # fmt: skip
    assert made.objective == "seq2seq"
    opened = clearstory.open(tmp_path / "run")
    assert opened.model.config.decoder_autoregression == "ssru"
    texts = ["one two", "four", "three one two"]
    together = clearstory.translate(opened, texts, beam=3, max_tokens=6).texts
    for text, found in zip(texts, together, strict=True):
        (alone,) = clearstory.translate(opened, text, beam=3, max_tokens=6).texts
        assert (alone.text, alone.tokens) == (found.text, found.tokens)
