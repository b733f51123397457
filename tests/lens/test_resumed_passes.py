"""Resumed passes: what starts at a block, or at a token, has the numbers of a whole pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_residual_stream import MORE, read_of

from clearstory.lens.hooks.activations import record_activations, replace_activations, transformer_stacks
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.residual_stream import output_stack
from clearstory.lens.hooks.resumed_passes import block_streams, last_unchanged, resumed_after
from clearstory.lens.probes import activation_patching
from clearstory.lens.probes.activation_patching import RowPatch, patch_every_position, token_batches
from clearstory.lens.probes.residual_stream import compare_rows
from tiny import TINY_CLEAR, TINY_GPT2, TINY_RECALL, shaken

DECODERS: dict[str, Any] = {
    "gpt2": TINY_GPT2,
    "clear": TINY_CLEAR,
    "window": replace(TINY_CLEAR, sliding_window=3),
    "recall": TINY_RECALL,
}


@pytest.mark.parametrize("name", MORE)
def test_a_resumed_pass_ends_as_a_whole_one(name: str) -> None:
    model, read = MORE[name]().double(), read_of(name)
    with torch.no_grad(), record_activations(model, *block_streams(model)) as streams:
        whole = read.forward(model)
    for prefix, stack in transformer_stacks(model):
        for layer in range(-1, len(stack.blocks)):
            with torch.no_grad(), resumed_after(model, prefix, layer, streams):
                resumed = read.forward_copies(model, 2)
            assert torch.allclose(resumed, whole.expand(2, -1, -1), atol=1e-12)


def test_blocks_before_the_layer_are_not_computed() -> None:
    model, read = shaken(TINY_GPT2), read_of("gpt2")
    with torch.no_grad(), record_activations(model, *block_streams(model)) as streams:
        read.forward(model)
    calls: list[int] = []
    for layer, block in enumerate(model.blocks):  # type: ignore[arg-type, union-attr]  # a Transformer
        block.attention.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
    with torch.no_grad(), resumed_after(model, "", 0, streams):
        read.forward(model)
    with torch.no_grad():
        read.forward(model)
    assert calls == [1, 0, 1]


@pytest.mark.parametrize("name", MORE)
def test_the_last_unchanged_block_is_before_every_change(name: str) -> None:
    model = MORE[name]()
    prefix, stack = output_stack(model)
    last = len(stack.blocks) - 1
    assert last_unchanged(model, {f"{prefix}embedding_output", f"{prefix}blocks.{last}"}) == (prefix, -1)
    assert last_unchanged(model, {f"{prefix}blocks.{last}.attention.head_outputs"}) == (prefix, last - 1)
    assert last_unchanged(model, {f"{prefix}blocks.{last}", f"{prefix}blocks.0.feed_forward"}) == (prefix, -1)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("tokens", [6, 1000])
def test_patching_over_a_cache_equals_whole_passes(name: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_patching, "BATCH_TOKENS", tokens)
    model: Any = shaken(DECODERS[name]).double()
    first, second = (5, 3, 7, 4, 9, 6), (5, 8, 7, 4, 2, 6)
    read, other = (Passage(ids, tuple(map(str, ids))) for ids in (first, second))
    seen = patch_every_position(model, read, other, (5, 5), (3, 7))
    names = ["embedding_output", *block_streams(model)]
    with torch.no_grad():
        with record_activations(model, *names) as recorded:
            other.forward(model)
        vectors = {name: recorded[name][0].clone() for name in names}
        for row, activation in enumerate(names):
            for token in range(6):
                with replace_activations(model, {activation: RowPatch([token], vectors[activation])}):
                    logits = model.logits(read.forward(model)[-1])
                share = (float(logits[3] - logits[7]) - seen.difference) / (seen.other_difference - seen.difference)
                assert float(seen.recovered[row, token]) == pytest.approx(share, abs=1e-9)


def test_batches_of_tokens_hold_what_is_computed() -> None:
    assert [len(each) for each in token_batches([3, 4, 90], 100, True)] == [3]
    groups = list(token_batches(list(range(1000)), 1000, True))
    assert [each for group in groups for each in group] == list(range(1000))
    assert all(len(group) * (1000 - group[0]) <= 2048 or len(group) == 1 for group in groups)
    assert len(list(token_batches(list(range(10)), 1000, False))) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("answer", [None, 3])
def test_rows_are_compared_as_by_their_probabilities(dtype: torch.dtype, answer: int | None) -> None:
    logits = 4 * torch.randn(5, 3, 40, dtype=dtype, generator=torch.Generator().manual_seed(1)) + 30
    logs = logits.double().log_softmax(-1)
    answers, words, best, probability, rank, entropy, kl = compare_rows(logits.clone(), 4, answer)
    expected = logs[-1].argmax(-1) if answer is None else torch.full((3,), answer)
    assert answers.equal(expected)
    own = logs.gather(2, expected.expand(5, -1)[..., None])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert words.equal(logs.topk(4).indices)
    assert torch.allclose(best.double(), logs.topk(4).values.exp(), atol=tolerance)
    assert torch.allclose(probability.double(), own[..., 0].exp(), atol=tolerance)
    assert rank.equal((logs > own).sum(-1) + 1)
    assert torch.allclose(entropy.double(), -(logs.exp() * logs).sum(-1) / math.log(2), atol=10 * tolerance)
    divergence = (logs[-1].exp() * (logs[-1] - logs)).sum(-1) / math.log(2)
    assert torch.allclose(kl.double(), divergence.clamp(min=0), atol=10 * tolerance)
