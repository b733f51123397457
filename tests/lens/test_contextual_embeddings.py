"""Contextual embeddings: a word has the same vector in two texts until its context is mixed in; its heads add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import record_activations, transformer_stacks
from clearstory.lens.probes.contextual_embeddings import contextual_embeddings, head_contributions, read_sentences
from clearstory.lens.probes.word_in_context import (
    EXAMPLE_SENTENCES,
    align_text,
    build_word_bank,
    cosines_by_layer,
    find_word,
    layer_vectors,
    layer_vectors_of_texts,
    standardize,
)
from clearstory.lens.views import Curve, Grid, Map, Table
from clearstory.models.transformer.presets import BERT_TINY, T5_SMALL
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_CLEAR, shaken

BPE = train_tokenizer("bpe:300", ["a model of a ship and a fashion model " * 9])
PIECES = train_tokenizer("wordpiece:60", ["a model of a ship and a fashion model " * 9])
SMALL: dict[str, Any] = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "context": 40,
}
ONE, OTHER = "a model of a ship", "a fashion model and"

KINDS: dict[str, Any] = {
    "decoder": (replace(TINY_CLEAR, vocab=BPE.vocab, context=40, kv_heads=2), BPE),
    "encoder": (replace(BERT_TINY, **SMALL, vocab=PIECES.vocab), PIECES),
    "encoder-decoder": (replace(T5_SMALL, **SMALL, vocab=BPE.vocab, decoder_start_token_id=0), BPE),
    "lstm": (replace(MODELS["lstm"]().config, vocab=BPE.vocab), BPE),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_word_has_the_same_vector_until_position_and_context_are_added(name: str) -> None:
    config, tokenizer = KINDS[name]
    model = shaken(config)
    one, other = (layer_vectors(model, tokenizer, text) for text in (ONE, OTHER))
    words = [each.mean_vectors(each.tokens_at(*find_word(each.aligned.text, "model"))) for each in (one, other)]
    found = cosines_by_layer(*words)
    assert one.names[0] == "embedding"
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert all(cosine < 0.9999 for cosine in found[2:])
    # The last is the model's hidden state; an encoder-decoder's is that of its decoder.
    if name != "encoder-decoder":
        assert torch.allclose(one.values[-1], one.aligned.passage.forward(model).detach().float(), atol=1e-5)


@pytest.mark.parametrize("name", ["decoder", "encoder", "encoder-decoder"])
def test_head_contributions_add_up_to_the_output_of_attention(name: str) -> None:
    config, tokenizer = KINDS[name]
    model = shaken(config)
    seen = layer_vectors(model, tokenizer, ONE)
    tokens = seen.tokens_at(*find_word(ONE, "model"))
    prefix, stack = transformer_stacks(model)[0]
    with torch.no_grad(), record_activations(model, f"{prefix}blocks.*.attention") as added:
        seen.aligned.passage.forward(model)
    moved = head_contributions(model, seen, tokens)
    blocks: Any = stack.blocks
    for layer, block in enumerate(blocks):
        parts = sum(each.added for each in moved if each.layer == layer)
        bias = block.attention.output.bias
        assert isinstance(parts, torch.Tensor)
        whole = parts if bias is None else parts + bias.detach().float()
        assert torch.allclose(whole, added[f"{prefix}blocks.{layer}.attention"][0, tokens].mean(0).float(), atol=1e-5)
    assert {each.attended[0][0] for each in moved} <= set(
        seen.aligned.passage.labels + seen.aligned.passage.source_labels
    )


def test_standardized_vectors_have_mean_0_and_deviation_1() -> None:
    torch.manual_seed(1)
    among = torch.randn(50, 8) * torch.tensor([1000.0, *[1.0] * 6, 0.0]) + 5
    clear = standardize(among, among)
    assert torch.allclose(clear.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(clear.std(0, correction=0), torch.tensor([1.0] * 7 + [0.0]), atol=1e-4)


def test_the_bank_has_the_mean_cosine_of_two_words() -> None:
    model = shaken(KINDS["lstm"][0])
    bank = build_word_bank(model, BPE, ["a model of", "fashion"])
    assert [word for word, _ in bank.words] == ["a", "model", "of", "fashion"]
    assert bank.words[1][1] == "a [model] of"
    vectors = F.normalize(bank.values[-1], dim=-1)
    pairs = [float(vectors[i] @ vectors[j]) for i in range(4) for j in range(4) if i != j]
    assert bank.mean_cosines()[-1] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_vectors_are_the_same_in_a_batch_as_alone(name: str) -> None:
    config, tokenizer = KINDS[name]
    model = shaken(config)
    texts = [ONE, OTHER, "a ship", "a model of a ship", "a ship and a model", "of", "fashion model ship"] * 2
    together = layer_vectors_of_texts(model, [align_text(model, tokenizer, text) for text in texts])
    assert [each.aligned.text for each in together] == texts
    for each in together:
        alone = layer_vectors(model, tokenizer, each.aligned.text)
        assert (each.names, each.aligned) == (alone.names, alone.aligned)
        for value, own in zip(each.values, alone.values, strict=True):
            assert float((value - own).norm() / own.norm()) < 1e-5


def test_the_bank_is_computed_in_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken(KINDS["decoder"][0])
    forward, sizes = type(model).forward, []

    def counted(self: Any, tokens: Any, state: Any = None) -> Any:
        sizes.append(len(tokens.ids))
        return forward(self, tokens, state)

    monkeypatch.setattr(type(model), "forward", counted)
    build_word_bank(model, BPE, ["a ship", "a model", "of a ship", "a ship"])
    assert sum(sizes) == 4
    assert len(sizes) == len({len(BPE.encode(text)) for text in ("a ship", "a model", "of a ship")})


def test_sentences_that_do_not_fit_are_counted() -> None:
    model = shaken(replace(KINDS["decoder"][0], context=12))
    bank = build_word_bank(model, BPE, ["a model", "a fashion model " * 9])
    assert (len(bank.words), bank.missing) == (2, 1)
    with pytest.raises(BadInput, match="all example sentences exceed"):
        build_word_bank(model, BPE, ["a fashion model " * 9])
    assert len(EXAMPLE_SENTENCES) == len(set(EXAMPLE_SENTENCES)) >= 40


@pytest.mark.parametrize("name", KINDS)
def test_the_report_has_a_panel_for_each_comparison(name: str) -> None:
    config, tokenizer = KINDS[name]
    model = shaken(config)
    bank = ["a ship and a model", "a fashion model"]
    view = contextual_embeddings(model, tokenizer, ONE, other_text=OTHER, word="model", top=3, sentences_file=bank)
    kinds = [type(step) for step in view.panels]
    # The word is several tokens of the encoder's tokenizer; an LSTM has no heads.
    assert kinds == [Curve, Map, Grid, Grid, Table, Table] + [Table] * (name != "lstm")
    curve = view.panels[0]
    assert isinstance(curve, Curve)
    assert curve.lines[0].y[0] == pytest.approx(1.0, abs=1e-6)
    near = view.panels[4]
    assert isinstance(near, Table)
    assert len(near.rows) == 3
    ways = view.panels[1]
    assert isinstance(ways, Map)
    first, second = ways.points[0], ways.points[len(ways.points) // 2]
    assert (first.x, first.y) == pytest.approx((second.x, second.y), abs=1e-5)


def test_example_sentences_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bank.txt"
    file.write_text("a model\n\na ship\n", encoding="utf-8")
    assert list(read_sentences(file)) == ["a model", "a ship"]
    assert read_sentences(None) is EXAMPLE_SENTENCES
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(BadInput, match="is empty"):
        read_sentences(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_sentences(tmp_path)


def test_what_cannot_be_compared_is_refused() -> None:
    config, tokenizer = KINDS["encoder"]
    model = shaken(config)
    with pytest.raises(BadInput, match="give the second text and the word"):
        contextual_embeddings(model, tokenizer, ONE)
    with pytest.raises(BadInput, match="‘ship’ does not occur in ‘a fashion model and’"):
        contextual_embeddings(model, tokenizer, ONE, other_text=OTHER, word="ship")
    with pytest.raises(BadInput, match="splits this text into two"):
        layer_vectors(model, tokenizer, "a ||| model")
    with pytest.raises(BadSetting, match="layer is 2"):
        contextual_embeddings(model, tokenizer, ONE, other_text=OTHER, word="model", layer=2, sentences_file=["a ship"])
    with pytest.raises(BadInput, match="does not occur"):
        find_word("models", "model")
    assert find_word("A MODEL.", "model") == (2, 7)
