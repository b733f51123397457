"""Attention and neighbours: what is shown is what the model computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.attention import attention, attention_weights
from clearstory.lens.neighbours import neighbours
from clearstory.models.arithmetic import Linear
from clearstory.models.base import Padded
from clearstory.text.learning import learn
from tiny import MODELS

BYTES = learn("bytes", [])
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("name", [name for name in MODELS if hasattr(MODELS[name](), "blocks")])
def test_weights_times_values_are_what_attention_adds(name: str) -> None:
    model: Any = MODELS[name]()
    for layer, block in enumerate(model.blocks):
        seen: dict[str, torch.Tensor] = {}
        own = block.attention.register_forward_hook(lambda _, args, out, seen=seen: seen.update(x=args[0], out=out))
        model.read(Padded.rows([IDS]))
        own.remove()
        weights = attention_weights(model, IDS, layer)
        assert torch.allclose(weights.sum(-1), torch.ones(()).to(weights))
        v = block.attention.value(seen["x"]).unflatten(-1, (-1, block.attention.head_width))[0].transpose(0, 1)
        v = v.repeat_interleave(weights.shape[0] // v.shape[0], 0)
        added = block.attention.output((weights @ v).transpose(0, 1).flatten(-2))
        assert torch.allclose(added, seen["out"][0], rtol=1e-9, atol=1e-12)


def test_the_most_decided_head_is_shown_and_heads_that_are_not_there_refused() -> None:
    model = next(iter(MODELS.values()))()
    tokenizer = learn("characters", ["abcdefghij"])
    view = attention(model, tokenizer, "abca")
    assert view.row_labels == ("a", "b", "c", "a")
    assert view.values[0] == (1.0, 0.0, 0.0, 0.0)
    with pytest.raises(BadSetting, match="head is 99"):
        attention(model, tokenizer, "ab", head=99)
    with pytest.raises(BadSetting, match="layer is 7"):
        attention(model, tokenizer, "ab", layer=7)
    with pytest.raises(CannotDo, match="a Linear has no attention"):
        attention_weights(Linear(2, 2), IDS, 0)


def test_neighbours_are_the_highest_cosines() -> None:
    model: Any = next(iter(MODELS.values()))()
    tokenizer = learn("characters", ["abcdefghij"])
    view = neighbours(model, tokenizer, "c", top=3)
    vectors = model.output_weight.detach()[: tokenizer.vocab]
    vectors = vectors - vectors.mean(0)
    own = tokenizer.encode("c")[0]
    assert len(view.column("token")) == 3
    by_hand = sorted(
        ((float(F.cosine_similarity(vectors[i], vectors[own], 0)), i) for i in range(tokenizer.vocab) if i != own),
        reverse=True,
    )
    assert view.column("cosine") == pytest.approx([cosine for cosine, _ in by_hand[:3]], abs=2e-6)
    with pytest.raises(BadInput, match="'abc' is not one token but a · b · c"):
        neighbours(model, tokenizer, "abc")
