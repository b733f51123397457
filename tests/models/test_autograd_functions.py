"""Operations with hand-written gradients, compared with PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clearstory.models import autograd_functions, cross_entropy
from clearstory.models.base import IGNORE_INDEX
from clearstory.models.transformer.positions import Rotary


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def causal_mask(count: int) -> torch.Tensor:
    return torch.full((count, count), -torch.inf, dtype=torch.float64).triu(1)


def test_rms_norm_equals_torchs() -> None:
    norm = autograd_functions.RMSNorm(8, 1e-6).double()
    with torch.no_grad():
        norm.weight.normal_()
    x = doubles(2, 3, 8)
    assert torch.allclose(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-6), rtol=1e-12)
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(lambda gain: autograd_functions._RMS.apply(x.detach(), gain, 1e-6), (norm.weight,))


def test_rotation_preserves_norms_and_is_inverted_by_the_opposite_angle() -> None:
    turn = Rotary(8, 16, 100.0).double().cos_sin(slice(0, 5), torch.float64)
    x = doubles(2, 5, 3, 8)
    y = autograd_functions.rotate(x, turn)
    assert torch.allclose(y.norm(dim=-1), x.norm(dim=-1))
    assert torch.allclose(autograd_functions.rotate(y, (turn[0], -turn[1])), x)
    assert torch.autograd.gradcheck(lambda x: autograd_functions.rotate(x, turn), (x,))


def test_rotated_dot_products_depend_on_distance_only() -> None:
    rotary = Rotary(8, 64, 100.0).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)

    def dot(i: int, j: int) -> float:
        at = rotary.cos_sin(torch.tensor([i, j]), torch.float64)
        both = autograd_functions.rotate(torch.stack([q, k])[None, :, None], at)[0, :, 0]
        return float(both[0] @ both[1])

    # 9 - 4 = 39 - 34; the tables are fp32, so the angles agree to about 1e-6
    assert dot(9, 4) == pytest.approx(dot(39, 34), abs=1e-5)
    assert dot(9, 4) != pytest.approx(dot(9, 5), abs=1e-3)


def test_attention_equals_torchs() -> None:
    q, k, v = doubles(2, 3, 5, 4), doubles(2, 3, 5, 4), doubles(2, 3, 5, 4)
    mask = causal_mask(5)
    ours = autograd_functions.attend(q, k, v, mask)
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda q, k, v: autograd_functions.attend(q, k, v, mask), (q, k, v))


def test_gelu_by_sigmoid_equals_the_tanh_form() -> None:
    x = doubles(50)
    assert torch.allclose(autograd_functions.gelu_tanh(x), F.gelu(x, approximate="tanh"), rtol=1e-12)
    assert torch.autograd.gradcheck(autograd_functions.gelu_tanh, (x,))


@pytest.mark.parametrize("weights", ["alike", "unlike"])
def test_chunked_cross_entropy_equals_dense(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 3 * 7)  # three tokens at a time
    hidden, weight = doubles(2, 4, 5), doubles(7, 5)
    targets = torch.tensor([[0, 6, IGNORE_INDEX, 3], [1, 1, 2, IGNORE_INDEX]])
    scale = torch.full((2, 4), 0.3).double() if weights == "alike" else torch.rand(2, 4).double()
    ours = cross_entropy.linear_cross_entropy(hidden, weight, targets)
    dense = F.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORE_INDEX
    ).view(2, 4)
    assert torch.allclose(ours, dense, rtol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((scale * ours).sum(), (hidden, weight)),
        torch.autograd.grad((scale * dense).sum(), (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 1, 1, 7), (2, 3, 5, 7)])
def test_attention_with_hand_written_gradients_trains_its_mask_too(shape: tuple[int, ...]) -> None:
    """Keys of another length than queries, as in cross-attention; relative bias, padding, and both."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, count, 4, dtype=torch.float64, requires_grad=True) for count in (5, 7, 7))
    mask = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours = autograd_functions.attend(q, k, v, mask)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(theirs)
    mine, wanted = (torch.autograd.grad((out * weights).sum(), (q, k, v, mask)) for out in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)
