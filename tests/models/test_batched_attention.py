"""Attention over caches copied into one batch, as on a GPU, equals each sequence's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from clearstory.models.transformer.attention import LayerCache, attend_batched, attend_sequence


def past(kept: int, new: int, heads: int) -> LayerCache:
    data = torch.randn(2, heads, kept, 4, dtype=torch.float64)
    return data[0], data[1], data[:, :, kept - new :]


def pseudo_token_nll(q: Tensor, rows: list[LayerCache], window: int | None) -> list[Tensor]:
    news = [room.shape[2] for _, _, room in rows]
    return [
        attend_sequence(each[:, :new], keys, values, window)
        for each, new, (keys, values, _) in zip(q, news, rows, strict=True)
        if new
    ]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "sizes",
    [[(5, 1), (5, 1)], [(9, 1), (2, 1), (6, 1)], [(4, 4), (7, 7)], [(7, 3), (3, 3), (9, 1), (2, 0), (0, 0)]],
    ids=["alike", "ragged", "from nothing", "all at once"],
)
def test_batched_attention_equals_each_sequence_alone(
    sizes: list[tuple[int, int]], heads: int, window: int | None
) -> None:
    torch.manual_seed(1)
    rows = [past(kept, new, heads) for kept, new in sizes]
    q = torch.randn(len(rows), 2, max(new for _, new in sizes), 4, dtype=torch.float64)
    found = attend_batched(q, rows, window)
    assert found.isfinite().all()
    asking = [place for place, (_, new) in enumerate(sizes) if new]
    for place, wanted in zip(asking, pseudo_token_nll(q, rows, window), strict=True):
        assert_close(found[place, :, : wanted.shape[1]], wanted, rtol=1e-9, atol=1e-9)


def test_empty_caches_give_zeros() -> None:
    q = torch.randn(2, 2, 1, 4)
    blank = (torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), torch.zeros(2, 2, 0, 4))
    assert torch.equal(attend_batched(q, [blank, blank], None), torch.zeros_like(q))
