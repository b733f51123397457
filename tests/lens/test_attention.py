"""Attention and one head step by step: what is shown is what the model computes, and the parts add up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo, UnknownName
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.attention_sites import (
    attention_parts,
    attention_patterns,
    attention_site,
    attention_sites,
    attention_weights,
    linear_weight,
    pooled_patterns,
)
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.attention import attention, attention_caption
from clearstory.lens.probes.attention_head import (
    MAX_DIMENSIONS,
    attention_head,
    head_output_in_stream,
    head_quantities,
    logit_changes,
    normed_summand,
)
from clearstory.lens.registry import check_supported, supported_views
from clearstory.lens.views import Grid, Table
from clearstory.models.capabilities import Capability
from clearstory.models.lora import LoRALinear
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL, TRANSFORMER_BASE
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, VOCAB, shaken

TINY: dict[str, Any] = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "vocab": VOCAB,
    "context": 24,
}  # fmt: skip
MAKE: dict[str, Any] = {
    **{name: MODELS[name] for name in ("gpt2", "clear", "grouped", "windowed", "recalling", "placeless")},
    "encoder": lambda: shaken(replace(BERT_TINY, **TINY)),
    "t5": lambda: shaken(replace(T5_SMALL, **TINY)),
    "2017": lambda: shaken(replace(TRANSFORMER_BASE, **TINY, decoder_start_token_id=0)),
}
IDS = (3, 1, 4, 1, 5, 9, 2, 6)
PIECES = tuple(map(str, IDS))
PLACES = [(name, part) for name in MAKE for part in attention_parts(MAKE[name]())]


def read_by(model: Any) -> Passage:
    """A row of tokens, with a longer source where the model reads one."""
    if Capability.SOURCE in model.capabilities:
        return Passage(IDS[:5], PIECES[:5], IDS[::-1], PIECES[::-1])
    return Passage(IDS, PIECES)


@pytest.mark.parametrize(("name", "part"), PLACES)
def test_heads_and_the_bias_add_up_to_what_attention_adds(name: str, part: Any) -> None:
    model = MAKE[name]()
    read = read_by(model)
    for at in attention_sites(model, part):
        all_quantities = [head_quantities(model, read, at.layer, number, part) for number in range(at.heads)]
        with record_activations(model, at.name) as seen:
            read.forward(model)
        _, bias = linear_weight(at.attention.output)
        total = sum((quantities.added for quantities in all_quantities), torch.zeros(())) + (
            0 if bias is None else bias
        )
        assert torch.allclose(total, seen[at.name][0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("name", "part"), PLACES)
def test_each_step_of_a_head_is_computed_from_the_one_before(name: str, part: Any) -> None:
    model = MAKE[name]()
    read = read_by(model)
    same = {"rtol": 1e-9, "atol": 1e-9}
    for layer, number in ((0, 0), (1, 1)):
        w = head_quantities(model, read, layer, number, part)
        at = attention_site(model, layer, part)
        assert torch.allclose(w.dots, w.query @ w.key.mT, **same)
        assert torch.allclose(w.scaled * math.sqrt(w.key.shape[-1]), w.dots, **same)
        seen = ~torch.isinf(w.scores)
        whole = w.scaled if w.bias is None else w.scaled + w.bias
        assert torch.allclose(w.scores[seen], whole[seen], **same)
        assert (w.bias is not None) == (name == "t5" and part != "cross")
        assert bool((~seen).any()) == at.attention.causal
        assert torch.allclose(w.scores.softmax(-1), w.pattern, **same)
        assert torch.allclose(w.pattern @ w.value, w.output, **same)
        assert torch.allclose(head_output_in_stream(at, w.output, number), w.added, **same)
        assert torch.allclose(w.residual + w.added, w.after, **same)
        # The key is computed from `source_input`; in some models it is rotated by its position.
        if at.stack.rotary is None:
            key = at.attention.key(w.source_input).unflatten(-1, (-1, at.head_dim))[:, number]
            assert torch.allclose(key, w.key, **same)


@torch.no_grad()
def test_the_normed_output_of_a_head_is_in_logits() -> None:
    """Removing a head of the last block changes the logits by its normed output, the norm's scale held constant."""
    model = MAKE["gpt2"]()
    read = read_by(model)
    quantities = head_quantities(model, read, 1, 1)
    with record_activations(model, "blocks.1") as seen:
        hidden = read.forward(model)
    last = seen["blocks.1"][0]
    logits = model.logits(hidden)
    assert quantities.normed is not None
    rest = normed_summand(model.norm, last - quantities.added, last) + model.norm.bias
    assert torch.allclose(model.logits(rest + quantities.normed), logits, rtol=1e-9, atol=1e-9)
    up, down = next(iter(logit_changes(model, quantities.normed, top=2)))
    moved = model.output_weight @ quantities.normed[0]
    assert [id for id, _ in up] == moved.argsort(descending=True)[:2].tolist()
    assert [id for id, _ in down] == moved.argsort()[:2].tolist()
    assert up[0][1] == pytest.approx(float(moved.max()))


def test_lora_updates_are_part_of_the_weight() -> None:
    base = torch.nn.Linear(4, 3).double()
    wide = LoRALinear(base, a=torch.randn(2, 4).double(), b=torch.randn(3, 2).double(), alpha=4.0)
    weight, bias = linear_weight(wide)
    x = torch.randn(5, 4).double()
    assert bias is not None
    assert torch.allclose(x @ weight.mT + bias, wide(x))


def test_pooled_patterns_hold_every_bright_point() -> None:
    for name, part in (("grouped", "decoder"), ("t5", "cross")):
        model = MAKE[name]()
        read = read_by(model)
        whole = torch.stack(attention_patterns(model, read, attention_sites(model, part)))
        small = pooled_patterns(model, read, part, cells=100)
        assert small.shape == whole.shape
        assert torch.equal(small, (whole.float() * 255).round().to(torch.uint8))
        four = pooled_patterns(model, read, part, cells=4)
        assert four.shape[-2:] == (4, 4)
        assert torch.equal(four.amax((-1, -2)), small.amax((-1, -2)))


def test_the_view_of_every_kind_names_its_rows_and_columns() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    model: Any = shaken(replace(T5_SMALL, **TINY | {"vocab": tokenizer.vocab}, decoder_start_token_id=0))
    seen = {
        part: attention(model, tokenizer, "abca", layer=1, head=1, part=part, target="ba")
        for part in attention_parts(model)
    }
    source = ("a·0", "b", "c", "a·3", tokenizer.display_token(tokenizer.eos_token_id))
    written = encode_passage(model, tokenizer, "abca", target="ba").labels
    assert (seen["encoder"].row_labels, seen["encoder"].column_labels) == (source, source)
    assert (seen["decoder"].row_labels, seen["decoder"].column_labels) == (written, written)
    assert (seen["cross"].row_labels, seen["cross"].column_labels) == (written, source)
    assert attention(model, tokenizer, "abca", layer=1, head=1) == seen["encoder"]
    assert seen["cross"].title.startswith("Attention weights of layer 1, cross-attention, head 1")
    read = encode_passage(model, tokenizer, "abca", target="ba")
    weights = attention_weights(model, read, attention_site(model, 1, "cross"))
    assert seen["cross"].values == tuple(map(tuple, weights[1].tolist()))
    decoder: Any = shaken(
        replace(
            T5_SMALL,
            **TINY | {"vocab": tokenizer.vocab},
            architecture="decoder",
            decoder_start_token_id=None,
            logit_scale=False,
        )
    )
    assert attention(decoder, tokenizer, "abca").values[0][0] == 1.0


def sparse_pattern(size: int, *weights: tuple[int, int, float], rest: str = "first") -> Tensor:
    """A causal pattern with these weights (query, key, weight); the rest of each row on the first key, or even."""
    pattern = torch.zeros(size, size, dtype=torch.float64)
    for query, key, weight in weights:
        pattern[query, key] = weight
    for query in range(size):
        left = 1 - float(pattern[query].sum())
        if rest == "first":
            pattern[query, 0] += left
        elif rest == "previous":
            pattern[query, max(0, query - 1)] += left
        else:
            pattern[query, : query + 1] += left / (query + 1)
    return pattern


def test_the_default_head_is_one_that_attends_to_words() -> None:
    # "the fast red car and the slow boat": 'car' attends to both of its adjectives, 'boat' to its own.
    sink, previous, even = (sparse_pattern(8, rest=kind) for kind in ("first", "previous", "even"))
    adjectives = sparse_pattern(8, (3, 1, 0.47), (3, 2, 0.47), (7, 6, 0.9))
    other_words = sparse_pattern(8, (5, 2, 0.3), (6, 1, 0.3))
    two_back = sparse_pattern(8, *((query, query - 2, 1.0) for query in range(2, 8)))
    site = attention_site(MODELS["gpt2"]())
    for heads in ([sink, adjectives, previous, even], [sink, previous, other_words, even], [even, sink, adjectives]):
        chosen = site.resolve_head(None, torch.stack(heads))
        assert any(heads[chosen] is each for each in (adjectives, other_words))
    stacked = torch.stack([sink, adjectives, previous, even])
    assert site.selectivity(stacked)[[0, 2]].tolist() == pytest.approx([0, 0])
    assert float(site.selectivity(two_back[None])) == pytest.approx(0)  # a fixed distance depends on no word
    # On a special token no weight counts, as on [SEP] in the middle of an encoder's text.
    special = [False, True, True, False, False, False, True, False]
    assert float(site.selectivity(stacked, special).max()) < 0.01


def test_the_default_head_is_chosen_from_all_layers_or_from_the_given_one() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    model = MODELS["gpt2"]()
    view = attention(model, tokenizer, "abcadeb")
    assert view.row_labels[:4] == ("a·0", "b·1", "c", "a·3")
    assert view.values[0][:2] == (1.0, 0.0)
    read = encode_passage(model, tokenizer, "abcadeb")
    sites = attention_sites(model)
    weights = [attention_weights(model, read, site) for site in sites]
    scores = torch.stack([site.selectivity(each) for site, each in zip(sites, weights, strict=True)])
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    assert view.values == tuple(map(tuple, weights[layer][head].tolist()))
    assert attention_head(model, tokenizer, "abcadeb").title.startswith(f"Head {head} of layer {layer}")
    for layer in (0, 1):
        head = int(scores[layer].argmax())
        assert attention(model, tokenizer, "abcadeb", layer=layer).values == tuple(
            map(tuple, weights[layer][head].tolist())
        )


def test_heads_and_layers_that_do_not_exist_are_refused() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    model = MODELS["gpt2"]()
    for wrong, expected in (({"head": 99}, "head is 99"), ({"layer": 7}, "layer is 7")):
        with pytest.raises(BadSetting, match=expected):
            attention(model, tokenizer, "ab", **wrong)
    with pytest.raises(CannotDo, match="part is 'cross', but this model is a decoder only"):
        attention(model, tokenizer, "ab", part="cross")
    with pytest.raises(CannotDo, match="generated by an encoder-decoder, but this model has no source"):
        attention(model, tokenizer, "ab", target="c")
    with pytest.raises(CannotDo, match="has no residual stream"):
        attention_sites(MODELS["lstm"]())
    for name in ("lstm", "ngram", "hmm"):
        assert not {"attention", "head"} & set(supported_views(MODELS[name]()))
    with pytest.raises(CannotDo, match="'head' needs attention and a residual stream of layers, and this model"):
        check_supported("head", MODELS["lstm"]())
    assert {"attention", "head"} <= set(supported_views(MAKE["t5"]()))


def test_the_caption_follows_from_the_numbers() -> None:
    at = attention_site(MODELS["gpt2"]())
    weights = torch.tensor([[1.0, 0, 0, 0], [0.8, 0.2, 0, 0], [0.7, 0.2, 0.1, 0], [0.6, 0, 0, 0.4]])
    # (0.8 + 0.7 + 0.6) / 3 = 0.7; (0.8 · 1 + 0.7 · 2 + 0.2 · 1 + 0.6 · 3) / 3 = 4.2 / 3 = 1.4
    expected = "Mean maximum weight 70%, mean distance 1.4 tokens back; ‘a’ gets 70% of all weight."
    assert attention_caption(at, weights, "abcd") == expected
    assert "gets" not in str(attention_caption(at, torch.eye(4) * 0.9 + 0.025, "abcd"))
    assert attention_caption(at, torch.ones(1, 1), "a") is None


def test_the_view_shows_the_quantities_of_the_head() -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    for name, part in PLACES:
        made = MAKE[name]().config
        if name == "encoder":
            continue  # which a tokenizer of characters does not frame
        model: Any = shaken(replace(made, vocab=tokenizer.vocab))
        view = attention_head(
            model,
            tokenizer,
            "abca",
            layer=1,
            head=1,
            part=part,
            target="bab" if len(attention_parts(model)) > 1 else None,
        )
        read = encode_passage(model, tokenizer, "abca", target="bab" if len(attention_parts(model)) > 1 else None)
        quantities = head_quantities(model, read, 1, 1, part)
        grids = {step.title.split(":")[0]: step for step in view.panels if isinstance(step, Grid)}
        for title, values in {
            "Query · key": quantities.dots,
            "Softmax": quantities.pattern,
            "Queries": quantities.query,
            "Keys": quantities.key,
            "Values": quantities.value,
            "ΔE": quantities.added,
        }.items():
            assert grids[title].values == tuple(map(tuple, values.tolist())), title
        masked = [
            value
            for row in next(each for title, each in grids.items() if "mask" in title.lower()).values
            for value in row
        ]
        assert (-math.inf in masked) == attention_site(model, 1, part).attention.causal
        [table] = [step for step in view.panels if isinstance(step, Table)]
        assert table.column("‖ΔE‖") == pytest.approx(quantities.added.norm(dim=-1).tolist())
        assert ("promotes" in table.columns) == (quantities.normed is not None) == (part != "encoder")
        assert [
            isinstance(step, Grid) and step.title.startswith("Relative position bias") for step in view.panels
        ].count(True) == (quantities.bias is not None)


def test_of_long_vectors_the_largest_dimensions_are_shown_and_the_title_says_so() -> None:
    from clearstory.lens.probes.attention_head import vector_grid

    values = torch.zeros(2, MAX_DIMENSIONS + 6)
    values[:, 6:] = 1.0
    view = vector_grid("E", ("a", "b"), values, "sequential")
    assert view.title == f"E (the {MAX_DIMENSIONS} largest of {MAX_DIMENSIONS + 6} dimensions)"
    assert view.column_labels == tuple(map(str, range(6, MAX_DIMENSIONS + 6)))
    assert {value for row in view.values for value in row} == {1.0}


def test_with_keep_only_its_result_is_stored() -> None:
    model = MODELS["gpt2"]()
    with record_activations(model, "blocks.*.attention.pattern", keep=lambda pattern: pattern.shape[1]) as seen:  # type: ignore[arg-type, return-value]
        read_by(model).forward(model)
    assert set(seen.values()) == {2}
    with pytest.raises(UnknownName), record_activations(model, "nothing", keep=torch.zeros_like):
        pass
