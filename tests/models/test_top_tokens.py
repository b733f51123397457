"""The likeliest tokens by the compiled kernels and by PyTorch."""

from __future__ import annotations

import pytest
import torch

from clearstory.models.top_tokens import top_tokens


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
