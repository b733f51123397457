"""Attention of encoder-decoders to their source: recurrent ones in the same views, and each target token's row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.models.test_transformer_architectures import WRITERS
from tests.tiny import RECURRENT_WRITERS, shaken
from torch.testing import assert_close

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.hooks.activations import activation_names, record_activations, replace_activations
from clearstory.lens.hooks.attention_sites import attention_parts
from clearstory.lens.probes.alignment import alignment
from clearstory.lens.probes.attention import attention, combined_heads
from clearstory.lens.probes.head_types import head_types
from clearstory.lens.registry import VIEWS, check_supported, supported_views
from clearstory.lens.views import Grid
from clearstory.models.base import TokenBatch
from clearstory.text.train_tokenizer import train_tokenizer

TOKENIZER = train_tokenizer("bytes", [])
START = 7


def writer(name: str, **settings: Any) -> Any:
    config: Any = {**WRITERS, **RECURRENT_WRITERS}[name]
    return shaken(replace(config, vocab=TOKENIZER.vocab, decoder_start_token_id=START, **settings)).requires_grad_(
        False
    )


def weights_by_hand(model: Any, source: list[int], target: list[int]) -> torch.Tensor:
    """Additive attention token by token, from the states that decoding keeps."""
    state, rows = model.init_state(1, source=TokenBatch.from_sequences([source])), []
    attention = model.decoder.cross_attention
    for id in target:
        query = attention.query.weight @ state.hidden[0][0]
        rows.append((torch.tanh(state.keys[0] + query) @ attention.energy).softmax(0))
        _, state = model.forward(TokenBatch.from_sequences([[id]]), state)
    return torch.stack(rows)


def test_a_recurrent_decoders_attention_is_shown_as_it_is_computed() -> None:
    model = writer("additive")
    source, target = [*TOKENIZER.encode("the cat"), TOKENIZER.eos_token_id], [START, *TOKENIZER.encode("die")]
    wanted = weights_by_hand(model, source, target)
    views = [each(model, TOKENIZER, "the cat", target="die") for each in (attention, combined_heads, alignment)]
    for view in views:
        assert isinstance(view, Grid)
        assert_close(torch.tensor(view.values, dtype=torch.float64), wanted, rtol=1e-9, atol=1e-9)
        assert view.column_labels[:3] == ("t·0", "h", "e")
    assert views[0].row_labels[1:] == ("d", "i", "e")
    assert views[2].row_labels[:3] == ("d", "i", "e")  # each in the row it was predicted with, and then the end
    assert "heads" in supported_views(model)
    assert head_types(model, TOKENIZER, "the cat", target="die").panels


@pytest.mark.parametrize("name", ["additive", "dot", "t5", "2017"])
def test_an_alignment_has_a_row_for_each_target_token_and_the_end(name: str) -> None:
    model = writer(name)
    view = alignment(model, TOKENIZER, "abc", target="xy")
    assert (len(view.values), len(view.column_labels)) == (3, 4)
    assert [sum(row) for row in view.values] == pytest.approx([1, 1, 1])
    heads = WRITERS[name].heads if name in WRITERS else 1
    rows: Any = [alignment(model, TOKENIZER, "abc", target="xy", head=head).values for head in range(heads)]
    assert_close(torch.tensor(rows, dtype=torch.float64).mean(0), torch.tensor(view.values, dtype=torch.float64))
    with pytest.raises(BadInput, match="give the target with --target"):
        alignment(model, TOKENIZER, "abc")
    with pytest.raises(BadSetting, match=f"head is 9, and the layer has {heads}"):
        alignment(model, TOKENIZER, "abc", target="x", head=9)


def test_what_a_recurrent_encoder_decoder_does_not_have_is_refused_in_a_sentence() -> None:
    model, plain = writer("additive"), writer("cho")
    assert attention_parts(model) == ("cross",)
    with pytest.raises(CannotDo, match="part is 'encoder', but this model has cross-attention only; leave part out"):
        attention(model, TOKENIZER, "a", target="b", part="encoder")
    for view in ("head", "qk-circuit", "dependency-heads", "logit-lens", "gates"):
        assert not VIEWS[view].supports(model)
        with pytest.raises(CannotDo, match=r"and this model \(lstm\) has no .*; it supports tokens, .*alignment"):
            check_supported(view, model)
    with pytest.raises(CannotDo, match=r"the view 'alignment' needs .*and this model \(gru\) has no attention"):
        check_supported("alignment", plain)
    assert activation_names(model) == ["cross_attention.pattern"]
    source = TokenBatch.from_sequences([[1, 2, 3]])
    with record_activations(model, "cross_attention.pattern") as recorded:
        model.forward(TokenBatch.from_sequences([[START, 4]]), source=source)
    assert recorded["cross_attention.pattern"].shape == (1, 1, 2, 3)
    with (
        replace_activations(model, {"cross_attention.pattern": torch.zeros_like}),
        pytest.raises(CannotDo, match="cannot be replaced"),
    ):
        model.forward(TokenBatch.from_sequences([[START, 4]]), source=source)
