"""The likeliest tokens by the compiled kernels and by PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.models.build import build
from clearstory.models.inference_model import inference_model
from clearstory.models.native.panels import PanelMatrix
from clearstory.models.top_tokens import top_tokens
from clearstory.models.transformer.presets import T5_SMALL


@pytest.mark.parametrize("vocab", [1, 5, 63, 64, 1000, 33_001])
def test_they_are_those_of_log_softmax(vocab: int, kernels_by: str) -> None:
    logits = torch.randn(7, vocab, generator=torch.Generator().manual_seed(vocab)) * 5
    count = min(9, vocab)
    logprobs, ids = top_tokens(logits, 9)
    expected = logits.double().log_softmax(-1)
    best, order = expected.topk(count)
    torch.testing.assert_close(logprobs, best, rtol=0, atol=1e-6)
    torch.testing.assert_close(ids, order)
    torch.testing.assert_close(expected.gather(1, ids), logprobs, rtol=0, atol=1e-6)


def test_a_row_does_not_depend_on_the_others(kernels_by: str) -> None:
    logits = torch.randn(5, 700, generator=torch.Generator().manual_seed(0))
    together = top_tokens(logits, 4)
    for row in range(5):
        for found, expected in zip(top_tokens(logits[row : row + 1], 4), together, strict=True):
            assert torch.equal(found[0], expected[row])


def test_what_is_not_finite(kernels_by: str) -> None:
    logits = torch.zeros(5, 100)
    logits[0, 3] = torch.nan
    logits[1, 4] = torch.inf
    logits[2] = -torch.inf
    logits[3, :98] = -torch.inf
    logprobs, ids = top_tokens(logits, 3)
    assert logprobs.isnan().all(1).tolist() == [True, True, True, False, False]
    assert ids[3, :2].sort().values.tolist() == [98, 99]
    torch.testing.assert_close(logprobs[3, :2], torch.full((2,), 0.5, dtype=torch.float64).log(), rtol=0, atol=1e-6)
    assert logprobs[3, 2] == -torch.inf


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_of_panels_are_compared_as_they_are_computed(
    precision: Any, threads: int, compiled_kernels: None
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(1100, 40, generator=generator), torch.randn(1100, generator=generator)
    x = torch.randn(250, 40, generator=generator)
    x[9, 3] = torch.nan
    matrix = PanelMatrix(weight, bias, precision)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        logprobs, ids = matrix.top(x, 5)
    finally:
        torch.set_num_threads(before)
    expected, order = top_tokens(matrix.multiply(x), 5)
    assert torch.equal(ids, order)
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-6, equal_nan=True)
    for found, whole in zip(matrix.top(x[100:101], 5), (logprobs, ids), strict=True):
        assert torch.equal(found[0], whole[100])
    assert matrix.top(x, 2000)[0].shape == (250, 1100)


def test_a_view_finds_them_without_logits(kernels_by: str) -> None:
    model = build(replace(T5_SMALL, vocab=90, width=16, heads=2, kv_heads=2, head_dim=8, layers=1), seed=1).eval()
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    for precision in ("fp32", "int8"):
        view: Any = inference_model(model, precision)
        logprobs, ids = view.top_tokens(hidden, 3)
        expected, order = top_tokens(view.logits(hidden), 3)
        torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-6)
        assert torch.equal(ids, order)
