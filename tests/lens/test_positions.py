"""Positions: the summands add up to the recorded embedding output."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.lens.hooks.activations import record_activations, transformer_stacks
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.positions import bias_by_distance, bucket_table, input_parts, positions, rotation_angles
from clearstory.lens.views import Table
from clearstory.models.families import PRESETS
from clearstory.models.transformer.positions import RelativePositionBias, Rotary
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, TINY_RECALL, shaken

CHARACTERS = train_tokenizer("characters", ["abcdefghijklmnopqrst "])
PIECES = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
SMALL: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}

KINDS: dict[str, tuple[Any, Any, str, set[str]]] = {
    "gpt2": (TINY_GPT2, CHARACTERS, "abca", {"token", "position"}),
    "clear": (TINY_CLEAR, CHARACTERS, "abca", {"token"}),
    "recalling": (TINY_RECALL, CHARACTERS, "abca", {"token", "hashed n-grams"}),
    "bert": (replace(BERT_TINY, **SMALL, vocab=PIECES.vocab), PIECES, "a ||| b c", {"token", "position", "segment"}),
    "t5": (replace(T5_SMALL, **SMALL, vocab=23, decoder_start_token_id=0), CHARACTERS, "abca", {"token"}),
    "2017": (replace(PRESETS["transformer-base"], **SMALL, vocab=23), CHARACTERS, "abca", {"token", "position"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_parts_add_up_to_the_embedding_output(name: str) -> None:
    config, tokenizer, text, kinds = KINDS[name]
    model: Any = shaken(config)
    with torch.no_grad():
        read = encode_passage(model, tokenizer, text, target="ba" if len(transformer_stacks(model)) > 1 else None)
        with record_activations(
            model, *(f"{prefix}embedding_output" for prefix, _ in transformer_stacks(model))
        ) as seen:
            read.forward(model)
        for prefix, stack in transformer_stacks(model):
            parts = input_parts(model, stack, read.source if prefix == "encoder." else read.ids, read.token_types)
            assert set(parts) == kinds
            assert all(part.abs().max() > 0 for part in parts.values())
            total = sum(parts.values())
            assert isinstance(total, torch.Tensor)
            total = total if stack.embedding_norm is None else stack.embedding_norm(total)
            assert torch.allclose(total, seen[f"{prefix}embedding_output"][0], rtol=1e-12, atol=1e-12)
    view = positions(model, tokenizer, text)
    off = [
        cell
        for step in view.panels
        if isinstance(step, Table) and "token" in step.columns
        for cell in step.column("error")
    ]
    assert max(float(str(each)) for each in off) < 1e-12


def test_angles_grow_with_the_position() -> None:
    rotary = Rotary(8, 40, 10_000.0)
    view = rotation_angles(rotary, tuple(map(str, range(40))), 3)
    assert view.column_labels == ("0", "2", "3")
    for position, row in enumerate(view.values):
        for pair, angle in zip((0, 2, 3), row, strict=True):
            turned = position * 10_000 ** (-2 * pair / 8)
            assert math.cos(angle) == pytest.approx(math.cos(turned), abs=1e-6)
            assert math.sin(angle) == pytest.approx(math.sin(turned), abs=1e-6)
    # Periods of 2π tokens, and of 2π · 10,000^(6/8).
    assert f"a period of 6.3 tokens, the last of {2 * math.pi * 1000:,.0f}" in str(view.caption)


@pytest.mark.parametrize("both", [True, False])
def test_buckets_are_those_of_t5(both: bool) -> None:
    theirs = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention._relative_position_bucket
    buckets = RelativePositionBias(3, both)
    count = 200
    rows = bucket_table(buckets, count, "").rows
    ours = {distance: row[0] for row in rows for distance in range(int(str(row[1])), int(str(row[2])) + 1)}
    distances = torch.arange(-(count - 1), count if both else 1)
    assert ours == dict(zip(distances.tolist(), theirs(distances, both, 32, 128).tolist(), strict=True))
    lines = bias_by_distance(buckets, count, "").lines
    assert [line.name for line in lines] == ["head 0", "head 1", "head 2"]
    [at] = [at for at, x in enumerate(lines[1].x) if x == -7]
    assert lines[1].y[at] == pytest.approx(
        float(buckets.bias.weight.detach()[buckets.bucket(torch.tensor([[-7]]))[0, 0], 1])
    )
