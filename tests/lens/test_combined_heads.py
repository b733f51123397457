"""Combined heads: one map from several is the average, or the largest, of theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.apply_interventions import pattern_with_interventions, visible_keys
from clearstory.lens.hooks.attention_sites import attention_patterns, attention_site, attention_sites
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.attention import combined_heads, select_heads
from clearstory.models.transformer.presets import T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

CHARACTERS = train_tokenizer("characters", ["abcdefghijklmnop"])
TEXT = "abcab"
SMALL: dict[str, Any] = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "context": 24,
}  # fmt: skip
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gpt2": (replace(TINY_GPT2, vocab=CHARACTERS.vocab), (None,)),
    "windowed": (replace(TINY_CLEAR, vocab=CHARACTERS.vocab, kv_heads=2, sliding_window=3), (None,)),
    "t5": (replace(T5_SMALL, **SMALL, vocab=CHARACTERS.vocab, decoder_start_token_id=0), (None, "decoder", "cross")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_map_of_several_heads_is_made_of_theirs(name: str) -> None:
    config, parts = CASES[name]
    model: Any = shaken(config)
    target = "ba" if name == "t5" else None
    read = encode_passage(model, CHARACTERS, TEXT, target=target)
    for part in parts:
        own = torch.stack(attention_patterns(model, read, attention_sites(model, part)))  # (L, H, T, S)

        def values(*heads: str, part: Any = part, **more: Any) -> torch.Tensor:
            seen = combined_heads(model, CHARACTERS, TEXT, heads=heads, part=part, target=target, **more)
            return torch.tensor(seen.values, dtype=torch.float64)

        assert torch.allclose(values(), own.mean((0, 1)))
        assert torch.allclose(values("1"), own[1].mean(0))
        # Head 1 of layer 0 counts three times, head 0 of layer 1 once: 3/4 and 1/4.
        assert torch.allclose(values("0.1 x3", "1.0"), 0.75 * own[0, 1] + 0.25 * own[1, 0])
        assert torch.equal(values("0.1"), own[0, 1])
        assert torch.equal(values(reduce="max"), own.amax((0, 1)))
        assert torch.equal(values("0", "1.1", reduce="max"), torch.stack([*own[0], own[1, 1]]).amax(0))
        assert torch.allclose(values("0.0", "0.1 x0.5").sum(-1), torch.ones(own.shape[2]).double())


def test_titles_and_captions_say_what_is_shown() -> None:
    model: Any = shaken(CASES["gpt2"][0])
    heads = select_heads(attention_sites(model), ("0.1", "1.0 x2"))
    assert (str(heads), heads.size, heads.layers) == ("heads 0.1, 1.0 x2", 2, [0, 1])
    assert str(select_heads(attention_sites(model), ())) == f"all {model.config.layers * model.config.heads} heads"
    seen = combined_heads(model, CHARACTERS, TEXT, reduce="max")
    sums = [sum(row) for row in seen.values]
    assert f"rows sum to {min(sums):.2f} to {max(sums):.2f}" in str(seen.caption)


@pytest.mark.parametrize(
    ("heads", "reduce", "words"),
    [
        (("9.0",), "mean", "layers go to 1"),
        (("0.9",), "mean", "heads to"),
        (("one",), "mean", "is not a head"),
        (("0.1 xx",), "mean", "is not a head"),
        (("0.1 x-1",), "mean", "a positive number"),
        (("0.1 x2",), "max", "a maximum ignores weights"),
    ],
)
def test_heads_that_do_not_exist_are_refused(heads: Any, reduce: Any, words: str) -> None:
    model: Any = shaken(CASES["gpt2"][0])
    with pytest.raises(BadSetting, match=words):
        combined_heads(model, CHARACTERS, TEXT, heads=heads, reduce=reduce)
    with pytest.raises(CannotDo, match="is a decoder only"):
        combined_heads(model, CHARACTERS, TEXT, part="cross")


def test_a_pattern_with_interventions() -> None:
    model: Any = shaken(CASES["gpt2"][0])
    read, at = encode_passage(model, CHARACTERS, TEXT), attention_site(model, 0)
    [before] = attention_patterns(model, read, [at])
    assert torch.equal(pattern_with_interventions(model, CHARACTERS, read, at, []), before)
    after = pattern_with_interventions(model, CHARACTERS, read, at, [parse_intervention("cell 0.1 3 1 0.75")])
    assert float(after[1, 3, 1]) == pytest.approx(0.75)
    assert float(after[1, 3].sum()) == pytest.approx(1)
    kept = [0, 2, 3]  # the others of the row keep their proportions: what is left is 1 - 0.75
    shares = before[1, 3, kept] / before[1, 3, kept].sum()
    assert torch.allclose(after[1, 3, kept], 0.25 * shares)
    assert torch.equal(after[0], before[0])
    # Later layers are recomputed: their weights change from the changed row on.
    [later] = attention_patterns(model, read, [attention_site(model, 1)])
    moved = pattern_with_interventions(
        model, CHARACTERS, read, attention_site(model, 1), [parse_intervention("cell 0.1 3 1 0.75")]
    )
    assert torch.allclose(moved[:, :3], later[:, :3])
    assert not torch.allclose(moved[:, 3], later[:, 3])
    assert torch.equal(visible_keys(at.attention, 3, 3), torch.ones(3, 3).tril().bool())
