"""Walkthrough: every quantity equals the library's own computation, and the parts add up as the equations say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.attention_sites import attention_site, attention_weights, linear_weight
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.probes.attention_head import head_quantities
from clearstory.lens.probes.contribution_lengths import head_clarity
from clearstory.lens.probes.predictions import next_token
from clearstory.lens.probes.residual_stream import lens_predictions, measure_norms
from clearstory.lens.probes.walkthrough import MAX_TOKENS, shown_dimensions, walkthrough
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL, TRANSFORMER_BASE
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_GPT2, shaken

SMALL: dict[str, Any] = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24, "context": 48,
}  # fmt: skip
LETTERS = train_tokenizer("bytes", [])
PIECES = train_tokenizer("wordpiece:30", ["the cat sat", "on a mat", "the sea"])
MODELS: dict[str, tuple[Any, Any, str | None]] = {
    "gpt2": (replace(TINY_GPT2, vocab=LETTERS.vocab, context=48), LETTERS, None),
    "grouped": (replace(TINY_CLEAR, vocab=LETTERS.vocab, context=48, kv_heads=2, sliding_window=4), LETTERS, None),
    "encoder": (replace(BERT_TINY, **SMALL, vocab=PIECES.vocab), PIECES, None),
    "t5": (replace(T5_SMALL, **SMALL, vocab=LETTERS.vocab, decoder_start_token_id=0), LETTERS, "ab"),
    "2017": (replace(TRANSFORMER_BASE, **SMALL, vocab=LETTERS.vocab, decoder_start_token_id=0), LETTERS, "ab"),
    "gemma": (
        replace(TINY_CLEAR, vocab=LETTERS.vocab, context=48, norm="rms_unit_offset", sandwich_norm=True),
        LETTERS,
        None,
    ),
}
TEXTS = {"encoder": ("the [MASK] sat on", "sea"), "": ("a b 🙂 c", "x")}
CASES = [(name, text) for name in MODELS for text in TEXTS.get(name, TEXTS[""])]


def close(one: Any, two: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(one).double(), torch.as_tensor(two).double(), atol=1e-7, rtol=1e-6, equal_nan=True
    )


def opened(name: str, text: str, **settings: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A model, the passage, the recorded activations of all blocks, and the walkthrough."""
    config, tokenizer, target = MODELS[name]
    model: Any = shaken(config)
    passage = encode_passage(model, tokenizer, text, target=target)
    with torch.no_grad(), record_activations(model, "**") as recorded:
        passage.forward(model)
    return model, passage, recorded, walkthrough(model, tokenizer, text, target=target, **settings)


@pytest.mark.parametrize(("name", "text"), CASES)
def test_streams_and_tokens_are_those_of_the_forward_pass(name: str, text: str) -> None:
    model, passage, recorded, made = opened(name, text)
    shown = shown_dimensions(16)
    assert [token["id"] for token in made["tokens"]] == list(passage.ids)
    for token in made["source_tokens" if passage.source else "tokens"]:
        assert token["special"] or token["start"] is not None
        if token["start"] is not None:
            assert text[token["start"] : token["stop"]]
    for part in ("encoder", "decoder"):
        prefix = f"{part}." if passage.source else ""
        if part not in made["parts"]:
            continue
        names = [f"{prefix}embedding_output", f"{prefix}blocks.0", f"{prefix}blocks.1"]
        close(made[f"{part}.stream"], torch.stack([recorded[each][0] for each in names])[..., shown])
        close(made[f"{part}.lengths"], torch.stack([recorded[each][0].norm(dim=-1) for each in names]))
        close(made[f"{part}.rms"] ** 2, torch.stack([recorded[each][0].square().mean(-1) for each in names]))
        for index in (0, 1):
            block = f"{prefix}blocks.{index}"
            close(made[f"{part}.attention_lengths"][index], recorded[f"{block}.attention"][0].norm(dim=-1))
            close(made[f"{part}.feed_forward_lengths"][index], recorded[f"{block}.feed_forward"][0].norm(dim=-1))
    if not passage.source:
        norms = measure_norms(model, passage)
        close(made[f"{made['parts'][0]}.lengths"], norms.residual[[0, 2, 4]])


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_open_head_equals_the_view_of_it_and_the_parts_add_up(name: str, text: str) -> None:
    for part in opened(name, text)[3]["parts"]:
        model, passage, recorded, made = opened(name, text, part=part, layer=1, head=1)
        site = attention_site(model, 1, part)
        pattern = attention_weights(model, passage, site)
        patterns = made[f"{part}.patterns"]
        assert int((patterns[1].double() - pattern * 255).abs().max()) <= 0.5
        if name != "gemma":
            seen = head_quantities(model, passage, 1, 1, part)
            for key in ("query", "key", "value", "dots", "scores", "pattern", "output"):
                close(made[f"head.{key}"], getattr(seen, key))
            close(made["head.added"], seen.added[:, shown_dimensions(16)])
            close(made["head.before"], seen.residual[:, shown_dimensions(16)])
        every = [opened(name, text, part=part, layer=1, head=head)[3] for head in range(site.heads)]
        _, bias = linear_weight(site.attention.output)
        total = sum(each["head.added"] for each in every)  # ΔE is the sum over heads, and the bias
        close(made["head.attention_added"], total if bias is None else total + bias[shown_dimensions(16)])
        if site.stack.config.norm_first:  # the stream is the sum of its changes
            close(made["head.after_attention"], made["head.before"] + made["head.attention_added"])
            if part != "decoder" or not passage.source:
                close(made["head.after"], made["head.after_attention"] + made["head.feed_forward_added"])
        block = site.name.rpartition(".")[0]
        neurons = recorded[f"{block}.feed_forward.neurons"][0]
        close(made["head.neuron_values"], neurons.gather(-1, made["head.neuron_ids"].long()))
        close(made["head.neuron_values"].abs(), neurons.abs().topk(12).values)
        over = neurons.abs() > neurons.abs().amax(-1, keepdim=True) / 10
        assert made["head.active_neurons"].tolist() == over.sum(-1).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_contributions_are_the_lengths_of_what_heads_carry(name: str) -> None:
    for part in opened(name, TEXTS.get(name, TEXTS[""])[0])[3]["parts"]:
        model, passage, recorded, made = opened(name, TEXTS.get(name, TEXTS[""])[0], part=part, layer=1, head=0)
        site = attention_site(model, 1, part)
        pattern, values = attention_weights(model, passage, site), recorded[f"{site.name}.value"][0]
        weight, bias = linear_weight(site.attention.output)
        values = values.repeat_interleave(site.heads // len(values), 0)
        carried = torch.einsum("hts,hsd,whd->tsw", pattern, values, weight.view(len(weight), site.heads, site.head_dim))
        if name == "gemma":  # its norm of the output, at the output's own scale
            output, norm = carried.sum(1), site.attention.output_norm
            carried = carried * (output.square().mean(-1) + norm.eps).rsqrt()[:, None, None] * norm.gain
        total = carried.sum(1) if bias is None else carried.sum(1) + bias
        close(total, recorded[site.name][0])
        stream = {"cross": f"{site.name.rpartition('.')[0]}.after_attention"}.get(
            part, f"{site.name.rpartition('blocks.')[0]}blocks.0"
        )
        close(made[f"{part}.contributions"][1], carried.norm(dim=-1) / recorded[stream][0].norm(dim=-1)[:, None])


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_the_logit_lens_and_the_next_token(name: str) -> None:
    text = TEXTS.get(name, TEXTS[""])[0]
    model, passage, _, made = opened(name, text)
    _, tokenizer, target = MODELS[name]
    row = passage.ids.index(tokenizer.mask_token_id) if name == "encoder" else len(passage.ids) - 1
    assert made["row"] == row
    lens = lens_predictions(model, passage, [row], top=3)
    stages = [0, *range(len(lens.names) // 2, len(lens.names), len(lens.names) // 2)]
    assert made["lens.ids"].tolist() == lens.words[stages, 0].tolist()
    close(made["lens.probabilities"], lens.probabilities[stages, 0])
    with torch.no_grad():
        logits = model.logits(passage.forward(model)[row])
    close(made["next.logits"], logits[made["next.ids"]])
    assert int(made["next.counts"].sum()) + len(made["next.ids"]) == model.vocab
    if name != "encoder":
        assert made["next.ids"][0] == next_token(model, tokenizer, text, target=target, top=1).rows[0][1]


def test_predicted_tokens_have_their_text_and_the_architecture_is_the_models() -> None:
    config, tokenizer, _ = MODELS["grouped"]
    seen = walkthrough(shaken(config), tokenizer, "abc")
    ids = {int(id) for name in ("lens.ids", "next.ids") for id in seen[name].flatten()}
    assert seen["pieces"] == {str(id): tokenizer.display_token(id) for id in ids}
    assert seen["architecture"]["kv_heads"] == 2
    assert all(value == getattr(config, name) for name, value in seen["architecture"].items())


def test_a_written_token_adds_a_row_and_changes_no_other() -> None:
    config, tokenizer, _ = MODELS["grouped"]
    model: Any = shaken(config)
    settings: dict[str, Any] = {"layer": 1, "head": 0}
    one, two = (walkthrough(model, tokenizer, text, **settings) for text in ("abcde", "abcdef"))
    new = walkthrough(model, tokenizer, "abcdef", rows=(5, 6), **settings)
    for key in ("decoder.stream", "decoder.lengths", "decoder.attention_lengths", "decoder.feed_forward_lengths"):
        close(torch.cat([one[key], new[key]], 1), two[key])
    for key in ("head.query", "head.added", "head.after", "decoder.final"):
        close(torch.cat([one[key], new[key]]), two[key])
    close(new["decoder.contributions"], two["decoder.contributions"][:, 5:])
    assert torch.equal(new["decoder.patterns"], two["decoder.patterns"][:, :, 5:])
    close(new["head.key"], two["head.key"])
    assert new["groups"] == {"decoder": [[5, 6]]}


def test_a_long_text_has_the_same_fields_in_groups() -> None:
    config, tokenizer, _ = MODELS["gpt2"]
    model: Any = shaken(replace(config, context=500))
    text = "abcde fgh " * 3
    exact, coarse = (walkthrough(model, tokenizer, text, layer=0, head=1, cells=cells) for cells in (40, 14))
    assert exact.keys() == coarse.keys()
    spans = coarse["groups"]["decoder"]
    assert [span[0] for span in spans] == [30 * index // 14 for index in range(14)]
    assert spans[-1][1] == 30
    last = [stop - 1 for _, stop in spans]
    close(coarse["decoder.stream"], exact["decoder.stream"][:, last])
    close(coarse["head.added"], exact["head.added"][last])
    for key in ("decoder.contributions", "head.pattern", "head.scores"):
        first, second = spans[3], spans[1]
        cell = exact[key][..., first[0] : first[1], second[0] : second[1]].amax((-1, -2))
        close(coarse[key][..., 3, 1], cell)
    longest = walkthrough(model, tokenizer, "ab" * 200)
    assert longest["decoder.patterns"].shape == (2, 2, 14, 14)
    with pytest.raises(BadInput, match=f"401 tokens.*{MAX_TOKENS}"):
        walkthrough(model, tokenizer, "a" * 401)


def test_the_first_head_does_not_rest_on_the_first_token_or_copy_the_one_before() -> None:
    model: Any = shaken(replace(TINY_CLEAR, kv_heads=2))
    site, size = attention_site(model, 0), 6
    pattern = torch.zeros(4, size, size, dtype=torch.float64)
    pattern[0, :, 0] = 1  # a sink
    pattern[1].diagonal(-1).fill_(1)  # the token before
    pattern[1, 0, 0] = 1
    pattern[2] = torch.ones(size, size).tril() / torch.arange(1, size + 1)[:, None]  # even
    pattern[3] = pattern[2]
    pattern[3, 3] = torch.tensor([0.1, 0.4, 0.45, 0.05, 0, 0])  # two words before
    pattern[3, 5] = torch.tensor([0.1, 0.05, 0.05, 0.75, 0.05, 0])
    clarity = head_clarity(site, pattern)
    assert int(clarity.argmax()) == 3
    assert float(clarity[:3].max()) < float(clarity[3]) / 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 2}, "layer is 2.*has 2"),
        ({"layer": 0, "head": 9}, "head is 9"),
        ({"row": 4}, "row is 4.*4 tokens"),
        ({"rows": (3, 9)}, "3, 9.*there are 4"),
        ({"cells": 0}, "cells is 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings: dict[str, Any], message: str) -> None:
    config, tokenizer, _ = MODELS["gpt2"]
    model: Any = shaken(config)
    with pytest.raises(BadSetting, match=message):
        walkthrough(model, tokenizer, "abcd", **settings)
