"""Residual stream: what is shown of it adds up to the model's logits, for every architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from test_activations import IDS, MAKE, TINY

from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.lens.hooks.activations import record_activations, replace_activations
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.residual_stream import (
    answer_position,
    final_hidden,
    output_stack,
    residual_path,
    residual_path_activations,
    single_token,
)
from clearstory.lens.probes.logit_attribution import (
    attribute_logits,
    logit_attribution,
    neurons,
    stream_parts,
    strongest_neurons,
)
from clearstory.lens.probes.residual_stream import (
    METRIC_UNITS,
    lens_predictions,
    logit_lens,
    measure_norms,
    residual_norms,
)
from clearstory.lens.registry import check_supported, supported_views
from clearstory.models.build import build
from clearstory.models.transformer.presets import BERT_TINY, MARIAN, MINILM, TRANSFORMER_BASE
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, shaken

MORE: dict[str, Any] = {
    **{name: make for name, make in MAKE.items() if name not in ("lstm", "rnn")},
    "after": lambda: shaken(replace(TINY_GPT2, norm_first=False)),
    "2017": lambda: shaken(replace(TRANSFORMER_BASE, **TINY)),
    "marian": lambda: shaken(replace(MARIAN, **TINY)),
}
SUMS = [name for name in MORE if name != "encoder"]
TOKENIZER = train_tokenizer("characters", ["abcdefghij klmnopqrst"])


def read_of(name: str) -> Passage:
    pieces = tuple(map(str, IDS))
    source = tuple(IDS[::-1]) if name in ("t5", "2017", "marian") else ()
    return Passage(tuple(IDS), pieces, source, tuple(map(str, source)))


@pytest.mark.parametrize("name", MORE)
def test_the_last_row_of_the_logit_lens_is_the_prediction(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    with torch.no_grad():
        expected = model.logits(read.forward(model)).softmax(-1)
    seen = lens_predictions(model, read, top=model.vocab)
    back = torch.zeros_like(expected).scatter(1, seen.words[-1], seen.probabilities[-1])
    assert torch.equal(back, expected) or torch.allclose(back, expected, rtol=1e-12, atol=0)
    assert torch.equal(seen.answers, expected.argmax(-1))
    assert seen.rank[-1].tolist() == [1] * len(IDS)
    assert float(seen.kl[-1].abs().max()) == 0


@pytest.mark.parametrize("name", MORE)
def test_the_end_of_the_stream_is_the_hidden_state_bit_for_bit(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    prefix, stack = output_stack(model)
    with torch.no_grad(), record_activations(model, f"{prefix}blocks.*") as seen:
        hidden = read.forward(model)
        assert torch.equal(final_hidden(model, seen[f"{prefix}blocks.{len(stack.blocks) - 1}"], IDS)[0], hidden)
        rows = read.forward_copies(model, 3)
    assert torch.allclose(rows, hidden.expand_as(rows), rtol=1e-9, atol=1e-12)


def test_the_numbers_of_the_logit_lens_by_hand() -> None:
    model, read = MORE["gpt2"](), read_of("gpt2")
    seen = lens_predictions(model, read, [2, 5], top=3)
    whole = lens_predictions(model, read)
    with torch.no_grad(), record_activations(model, "embedding_output", "blocks.0.after_attention", "blocks.1") as at:
        read.forward(model)
        first, half, last = (
            (model.norm(at[activation][0, 5]) @ model.embedding.weight.T).softmax(-1)
            for activation in ("embedding_output", "blocks.0.after_attention", "blocks.1")
        )
    assert seen.names == ("embedding", "0 attention", "0 feed-forward", "1 attention", "1 feed-forward")
    assert torch.allclose(seen.probabilities[0, 1], first.topk(3).values)
    assert torch.allclose(seen.probabilities[1, 1], half.topk(3).values)
    answer = int(last.argmax())
    assert float(seen.answer[1, 1]) == pytest.approx(float(half[answer]))
    assert int(seen.rank[0, 1]) == 1 + int((first > first[answer]).sum())
    assert float(seen.entropy[1, 1]) == pytest.approx(-float((half * half.log2()).sum()))
    assert float(seen.kl[1, 1]) == pytest.approx(float((last * (last / half).log2()).sum()))
    for number in ("answer", "rank", "entropy", "kl"):
        assert torch.allclose(getattr(seen, number), getattr(whole, number)[:, [2, 5]])
    assert float(lens_predictions(model, read, [5], answer=7).answer[0, 0]) == pytest.approx(float(first[7]))
    with pytest.raises(BadSetting, match="the text has 8 tokens"):
        lens_predictions(model, read, [8])


@pytest.mark.parametrize("name", SUMS)
def test_parts_add_up_to_the_logit(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    with torch.no_grad():
        logits = model.logits(read.forward(model))
    for position in (0, -1):
        seen = attribute_logits(model, read, [4, 9], position)
        assert torch.allclose(seen.logits, logits[position, [4, 9]], rtol=1e-12)
        assert torch.allclose(seen.values.sum(0), seen.logits, rtol=1e-9, atol=1e-12)
    assert attribute_logits(model, read).logits.item() == pytest.approx(float(logits[-1].max()))


@pytest.mark.parametrize("name", ["gpt2", "clear", "grouped", "t5"])
def test_in_float32_they_add_up_within_a_ten_thousandth(name: str) -> None:
    model, read = MORE[name]().float(), read_of(name)
    seen = attribute_logits(model, read, range(model.vocab))
    assert float(((seen.values.sum(0) - seen.logits).abs() / seen.logits.abs().max()).max()) < 1e-4


@contextmanager
def held(model: Any, read: Passage, position: int) -> Iterator[None]:
    """Every norm of the output stack with the scale that it has at this position."""
    _, stack = output_stack(model)
    norms = [each for each in stack.modules() if type(each).__name__ in ("LayerNorm", "RMSNorm")]
    scales: dict[int, torch.Tensor] = {}
    hooks = [
        norm.register_forward_hook(lambda own, args, out: scales.__setitem__(id(own), size(own, args[0][0, position])))
        for norm in norms
    ]
    read.forward(model)
    for hook in hooks:
        hook.remove()
    with ExitStack() as undo:
        for norm in norms:
            shift = getattr(norm, "bias", None)

            def linear(x: Any, norm: Any = norm, shift: Any = shift) -> Any:
                x = x - x.mean(-1, keepdim=True) if type(norm).__name__ == "LayerNorm" else x
                return x * scales[id(norm)] * norm.weight + (0 if shift is None else shift)

            undo.enter_context(mock.patch.object(norm, "forward", linear))
        yield


def size(norm: Any, x: torch.Tensor) -> torch.Tensor:
    spread = x.var(unbiased=False) if type(norm).__name__ == "LayerNorm" else x.square().mean()
    return 1 / (spread + norm.eps).sqrt()


@pytest.mark.parametrize("name", ["gpt2", "clear", "t5", "after", "2017", "marian"])
@torch.no_grad()
def test_a_part_is_the_change_of_the_logit_without_it(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    prefix, _ = output_stack(model)
    kinds = ("attention", "cross_attention") if prefix else ("attention",)
    with record_activations(
        model, *residual_path_activations(model), *(f"{prefix}blocks.*.{kind}.head_outputs" for kind in kinds)
    ) as seen:
        read.forward(model)
    seen = dict(seen)
    path = residual_path(model, seen, 7)
    parts = list(stream_parts(path, seen, prefix, 7))
    values = dict(zip([part for _, part, _ in parts], attribute_logits(model, read, [4]).values[:, 0], strict=False))
    with held(model, read, 7):
        still = {step.output: seen[step.output] for step in path.sublayers}
        with replace_activations(model, still):
            before = float(model.logits(read.forward(model)[7])[4])
        for number, part, vector in parts[1::3]:
            activation = path.sublayers[number].output
            without = seen[activation].clone()
            without[0, 7] -= vector
            with replace_activations(model, {**still, activation: without}):
                lost = before - float(model.logits(read.forward(model)[7])[4])
            assert lost == pytest.approx(float(values[part]), rel=1e-6, abs=1e-9), part


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_heads_and_bias_add_up_to_attention_and_neurons_to_the_feed_forward(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    prefix, stack = output_stack(model)
    kinds = ("attention", "cross_attention") if prefix else ("attention",)
    with record_activations(
        model, *residual_path_activations(model), *(f"{prefix}blocks.*.{kind}.head_outputs" for kind in kinds)
    ) as seen:
        read.forward(model)
    path = residual_path(model, seen, 7)
    parts = list(stream_parts(path, seen, prefix, 7))
    for number, step in enumerate(path.sublayers):
        total = sum(vector for own, _, vector in parts if own == number)
        assert torch.allclose(total, seen[step.output][0, 7], rtol=1e-9, atol=1e-12)
    sums = attribute_logits(model, read, [4])
    hidden = model.config.intermediate_size
    for layer, block in enumerate(stack.blocks):
        every = strongest_neurons(model, read, layer=layer, top=hidden, word=4)
        assert set(every.layers.tolist()) == {layer}
        assert sorted(every.neurons.tolist()) == list(range(hidden))
        assert every.contributions.abs().tolist() == sorted(every.contributions.abs().tolist(), reverse=True)
        bias: Any = block.feed_forward.down.bias
        number = next(
            at for at, step in enumerate(path.sublayers) if (step.layer, step.kind) == (layer, "feed-forward")
        )
        own = 0.0 if bias is None else float(path.propagate(number, bias) @ vector_of(model, 4))
        position = [part.name for part in sums.parts].index(f"{layer} feed-forward")
        assert float(every.contributions.sum()) + own == pytest.approx(
            float(sums.values[position, 0]), rel=1e-9, abs=1e-12
        )
    longest = strongest_neurons(model, read, top=4)
    assert longest.norms.tolist() == sorted(longest.norms.tolist(), reverse=True)


def vector_of(model: Any, id: int) -> torch.Tensor:
    vector: torch.Tensor = model.output_weight[id]
    return vector / math.sqrt(model.config.width) if model.config.logit_scale else vector


@pytest.mark.parametrize("name", MORE)
def test_norms_are_those_of_the_vectors(name: str) -> None:
    model, read = MORE[name](), read_of(name)
    prefix, _ = output_stack(model)
    with (
        torch.no_grad(),
        record_activations(
            model, f"{prefix}embedding_output", f"{prefix}blocks.0.attention", f"{prefix}blocks.0.after_attention"
        ) as at,
    ):
        read.forward(model)
    seen = measure_norms(model, read)
    assert len(seen.residual) == len(seen.names) + 1 == len(seen.output) + 1
    assert torch.allclose(seen.residual[0], at[f"{prefix}embedding_output"][0].norm(dim=-1))
    assert torch.allclose(seen.residual[1], at[f"{prefix}blocks.0.after_attention"][0].norm(dim=-1))
    assert torch.allclose(seen.output[0], at[f"{prefix}blocks.0.attention"][0].norm(dim=-1))


def tokenize_by_words(config: Any) -> Any:
    return shaken(replace(config, vocab=TOKENIZER.vocab))


def test_the_views_show_these_numbers() -> None:
    model = tokenize_by_words(TINY_CLEAR)
    view = logit_lens(model, TOKENIZER, "abca")
    assert view.column_labels == ("a·0", "b", "c", "a·3")
    assert view.texts is not None
    word, _, share = view.texts[-1][-1].partition("\n")
    assert f"the token ‘{word}’ is most likely from" in (view.caption or "")
    assert float(share) == pytest.approx(100 * view.values[-1][-1], abs=0.5)
    for metric in METRIC_UNITS:
        assert logit_lens(model, TOKENIZER, "abca", metric=metric).unit == METRIC_UNITS[metric]
    assert logit_lens(model, TOKENIZER, "abca", target="d").unit == "probability of ‘d’"
    report = logit_attribution(model, TOKENIZER, "abca", words=("d", "e"), top=3)
    table, grid = report.panels
    assert report.title.startswith("Logit of ‘d’ minus logit of ‘e’")
    with torch.no_grad():
        logits = model.logits(Passage(tuple(TOKENIZER.encode("abca")), ()).forward(model)[-1])
    ids = [single_token(TOKENIZER, word) for word in "de"]
    assert table.rows[-1][1] == pytest.approx(float(logits[ids[0]] - logits[ids[1]]))
    assert len(table.rows) == 5
    assert grid.column_labels == ("h0", "h1", "h2", "h3", "ff")
    assert [step.kind for step in residual_norms(model, TOKENIZER, "abca").panels] == ["curve", "grid"]
    assert residual_norms(model, TOKENIZER, "a").panels
    assert len(neurons(model, TOKENIZER, "abca", layer=1, top=5).rows) == 5


def test_what_cannot_be_is_refused() -> None:
    model = tokenize_by_words(TINY_CLEAR)
    with pytest.raises(BadInput, match="'abc' is not one token but a · b · c"):
        logit_attribution(model, TOKENIZER, "abca", target="abc")
    with pytest.raises(BadSetting, match="give one, or two"):
        logit_attribution(model, TOKENIZER, "abca", words=("a", "b", "c"))
    with pytest.raises(BadSetting, match="layer is 9, and the model has 2"):
        neurons(model, TOKENIZER, "abca", layer=9)
    with pytest.raises(BadSetting, match="give one, or none"):
        logit_lens(model, TOKENIZER, "abca", words=("a", "b"))
    pieces = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
    encoder = shaken(replace(BERT_TINY, **TINY | {"vocab": pieces.vocab}))
    assert {"logit-lens", "residual-norms"} <= set(supported_views(encoder))
    for name in ("logit-attribution", "neurons"):
        with pytest.raises(CannotDo, match="encoder"):
            check_supported(name, encoder)
        with pytest.raises(CannotDo, match="nonlinear"):
            {"logit-attribution": logit_attribution, "neurons": neurons}[name](encoder, pieces, "a")
    with pytest.raises(BadInput, match=r"predicts at a \[MASK\]"):
        answer_position(encoder, pieces, Passage((1, 2), ()))
    assert logit_lens(encoder, pieces, "a [MASK]").column_labels[2] == "[MASK]"
    bare: Any = build(replace(MINILM, **TINY | {"vocab": pieces.vocab}), seed=1)
    with pytest.raises(CannotDo, match="no masked language modelling head"):
        logit_lens(bare, pieces, "a b")
    for name in ("logit-lens", "logit-attribution", "residual-norms", "neurons"):
        for other in ("lstm", "ngram", "hmm"):
            assert name not in supported_views(MODELS[other]())
        assert name in supported_views(MORE["t5"]())


def test_the_logit_lens_at_selected_columns_equals_that_at_all() -> None:
    model = MODELS["gpt2"]()
    whole, few = (logit_lens(model, TOKENIZER, "abcab", columns=columns) for columns in ((), (1, 3)))
    assert few.column_labels == (whole.column_labels[1], whole.column_labels[3])
    for row, every in zip(few.values, whole.values, strict=True):
        assert row == pytest.approx((every[1], every[3]), rel=1e-12)
    assert few.texts == tuple((row[1], row[3]) for row in whole.texts or ())
    with pytest.raises(BadSetting, match="the text has 5 tokens"):
        logit_lens(model, TOKENIZER, "abcab", columns=(5,))
