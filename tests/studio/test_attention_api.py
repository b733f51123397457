"""Attending: what the attention page shows is what the library computes, for every shape and part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting
from clearstory.lens.hooks.attention_sites import attention_site, attention_weights, pooled_patterns
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.attention import combined_heads
from clearstory.lens.probes.head_types import THRESHOLDS, measure_heads
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.studio.attention_api import (
    CACHE,
    combined_pattern,
    edited_pattern,
    head_pattern,
    head_patterns,
    head_scores,
)
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

SMALL: dict[str, Any] = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "context": 24,
}
CHARACTERS = train_tokenizer("characters", ["abcdefghijklmnop"])
PIECES = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
CASES: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "gpt2": (replace(TINY_GPT2, vocab=CHARACTERS.vocab), CHARACTERS, (None,)),
    "grouped": (replace(TINY_CLEAR, vocab=CHARACTERS.vocab, kv_heads=2, sliding_window=3), CHARACTERS, (None,)),
    "bert": (replace(BERT_TINY, **SMALL, vocab=PIECES.vocab), PIECES, (None,)),
    "t5": (
        replace(T5_SMALL, **SMALL, vocab=CHARACTERS.vocab, decoder_start_token_id=0),
        CHARACTERS,
        (None, "decoder", "cross"),
    ),
}
TEXT = "a b c a b"


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_the_librarys(name: str) -> None:
    config, tokenizer, parts = CASES[name]
    model: Any = shaken(config)
    text, target = (TEXT, None) if name == "bert" else ("abcab", "ba" if name == "t5" else None)
    for part in parts:
        read = encode_passage(model, tokenizer, text, target=target)
        made = head_patterns(model, tokenizer, text, part=part, target=target, cells=3)
        assert torch.equal(made["patterns"], pooled_patterns(model, read, part, 3))
        for layer in (0, 1, -1):
            weights = attention_weights(model, read, attention_site(model, layer, part))
            for number in range(len(weights)):
                seen = head_pattern(model, tokenizer, text, layer=layer, head=number, part=part, target=target)
                assert torch.allclose(seen["weights"].double(), weights[number], atol=1e-6)
                assert (seen["layer"], seen["head"]) == (layer % 2, number)
                assert [len(seen["rows"]), len(seen["columns"])] == list(weights[number].shape)
        for heads, reduce in (((), "mean"), (("0.1", "1.0 x2"), "mean"), (("1",), "max")):
            one = combined_pattern(model, tokenizer, text, heads=heads, reduce=reduce, part=part, target=target)
            view = combined_heads(model, tokenizer, text, heads=heads, reduce=reduce, part=part, target=target)
            assert torch.allclose(one["weights"].double(), torch.tensor(view.values).double(), atol=1e-6)
            assert (one["title"], one["caption"]) == (view.title, view.caption)
            assert (one["rows"], one["columns"]) == (list(view.row_labels), list(view.column_labels))
        kind = {None: "cell", "decoder": "cell", "cross": "cross-cell"}[part]
        edit = (f"{'encoder ' * (name == 't5' and part is None)}{kind} 0.1 2 1 0.5",)
        turned = edited_pattern(model, tokenizer, text, layer=0, head=1, interventions=edit, part=part, target=target)
        usual = head_pattern(model, tokenizer, text, layer=0, head=1, part=part, target=target)
        assert torch.equal(turned["before"], usual["weights"])
        assert float(turned["weights"][2, 1]) == pytest.approx(0.5, abs=1e-6)
        assert float(turned["weights"][2].sum()) == pytest.approx(1, abs=1e-6)
        assert torch.equal(turned["visible"] == 0, turned["before"] == 0)
        called, measured = (
            head_scores(model, tokenizer, text, part=part, target=target),
            measure_heads(model, tokenizer, read, part),
        )
        assert called["names"] == [list(row) for row in measured.types]
        assert called["kinds"][:-1] == [each for each in THRESHOLDS if each in measured.scores]
    assert len(CACHE[model]) == len(parts)  # one reading for each, however often it is asked


def test_what_is_not_there_is_refused() -> None:
    config, tokenizer, _ = CASES["gpt2"]
    model: Any = shaken(config)
    with pytest.raises(BadSetting, match="layer is 9, and the model has 2"):
        head_pattern(model, tokenizer, "abc", layer=9)
    with pytest.raises(BadSetting, match="head is 7"):
        head_pattern(model, tokenizer, "abc", head=7)
    with pytest.raises(BadSetting, match="cells is 0"):
        head_patterns(model, tokenizer, "abc", cells=0)
