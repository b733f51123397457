"""Packed sequences: encoders compute no padding, and every number is that of each sequence alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clearstory.lens.hooks.activations import record_activations
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.packed_sequences import PackedSequences
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL

CONFIG = replace(BERT_TINY, vocab=50, context=16, width=32, heads=2, kv_heads=2, head_dim=16, dropout=0.0)
ROWS = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [11, 12], [13]]


def model_of(config: TransformerConfig = CONFIG) -> Encoder:
    model = build(config, seed=1).double().eval()
    assert isinstance(model, Encoder)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("norm_first", [False, True])
def test_every_sequence_has_the_vectors_it_has_alone(norm_first: bool) -> None:
    model = model_of(replace(CONFIG, norm_first=norm_first))
    together = model.encode(TokenBatch.from_sequences(ROWS))
    for hidden, ids in zip(together, ROWS, strict=True):
        alone = model.encode(TokenBatch.from_sequences([ids]))[0]
        assert torch.allclose(hidden[: len(ids)], alone, atol=1e-12)
        assert not hidden[len(ids) :].any()


def test_gradients_are_those_of_the_padded_batch() -> None:
    model, tokens = model_of(), TokenBatch.from_sequences(ROWS)
    assert tokens.lengths is not None
    real = torch.arange(5) < tokens.lengths[:, None]

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model.encode(tokens)[real].square().sum().backward()
        return [torch.zeros(()) if each.grad is None else each.grad.clone() for each in model.parameters()]

    packed = gradients()
    model.packs_sequences = False
    for ours, theirs in zip(packed, gradients(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_recorded_activations_have_the_shape_of_the_batch() -> None:
    model, tokens = model_of(), TokenBatch.from_sequences(ROWS)
    with record_activations(model, "blocks.*", "blocks.0.attention.pattern") as recorded:
        padded = model.encode(tokens)
    assert recorded["blocks.0"].shape == (5, 5, 32)
    assert recorded["blocks.0.attention.pattern"].shape == (5, 2, 5, 5)
    packed = model.encode(tokens)
    for row, ids in enumerate(ROWS):
        assert torch.allclose(packed[row, : len(ids)], padded[row, : len(ids)], atol=1e-12)


def test_attention_is_called_once_for_each_length() -> None:
    packed = PackedSequences(torch.tensor([3, 1, 3, 2]), 3)
    shapes = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        return q + k + v

    row = packed.pack(torch.randn(4, 3, 8)).unflatten(-1, (2, 4)).transpose(1, 2)
    assert torch.equal(packed.attend(attend, row, row, row), 3 * row)
    assert shapes == [(1, 2, 1, 4), (1, 2, 2, 4), (2, 2, 3, 4)]


def test_relative_positions_are_masked_and_not_packed() -> None:
    model = build(replace(T5_SMALL, vocab=50, width=32, heads=2, kv_heads=2, head_dim=16, layers=2), seed=1)
    assert not model.encoder.can_pack(torch.zeros(1, 2, 32))  # type: ignore[attr-defined]  # an encoder-decoder
