"""The inference form of encoder-decoders: one call of the compiled kernels for each stack, in every precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import CannotDo, ContextOverflow
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.build import build
from clearstory.models.inference_model import inference_model, precision_note
from clearstory.models.lora import adapt
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.encoder_decoder_inference import EncoderDecoderForInference
from clearstory.models.transformer.presets import CLEAR_TRANSLATE, MARIAN, T5_SMALL
from clearstory.models.transformer.token_cache import TokenCache

TINY: dict[str, Any] = {
    "vocab": 70, "context": 300, "width": 48, "heads": 3, "kv_heads": 3, "head_dim": 16, "intermediate_size": 80,
    "layers": 2,
}  # fmt: skip
VARIANTS = {
    "t5": replace(T5_SMALL, **TINY),
    "clear": replace(CLEAR_TRANSLATE, **TINY, decoder_layers=1),
    "untied": replace(CLEAR_TRANSLATE, **TINY, tie_embeddings=False),
    "marian": replace(MARIAN, **TINY, decoder_layers=3),
    "odd heads": replace(MARIAN, **TINY | {"width": 60, "heads": 4, "kv_heads": 2, "head_dim": 15}),
    "large heads": replace(T5_SMALL, **TINY | {"heads": 2, "kv_heads": 2, "head_dim": 96}),
}
SOURCES = [[5, 6, 7], [8, 9, 10, 11, 12] * 40, [3], [4] * 13]


def random_model(config: Any) -> EncoderDecoder:
    """An encoder-decoder with weights of which none is 0 or 1."""
    model = build(config, seed=1).eval()
    assert isinstance(model, EncoderDecoder)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model


def decoded(model: Any, sources: list[list[int]], rows: list[int]) -> torch.Tensor:
    """Logits after prompts of several lengths, and after steps between which sequences part, join and leave."""
    state = model.init_state(len(sources), source=TokenBatch.from_sequences(sources))
    prompts = TokenBatch.from_sequences([[0, *range(4, 4 + row)] for row in range(len(sources))])
    hidden, state = model.forward(prompts, state)
    found = [model.logits(hidden)[torch.arange(len(sources)), prompts.last_positions()]]
    before = state
    for step in range(5):
        ids = torch.tensor([[7 + step + row] for row in range(len(state.lengths))])
        hidden, state = model.forward(TokenBatch(ids), state)
        found.append(model.logits(hidden[:, 0]))
        state = state.select(rows)
    # An old state is still what it was.
    hidden, state = model.forward(TokenBatch(torch.full((len(sources), 1), 9)), type(state).join([before]))
    return torch.cat([*found, model.logits(hidden[:, 0])])


@pytest.mark.parametrize("name", VARIANTS)
def test_it_computes_what_the_model_does(name: str, compiled_kernels: None) -> None:
    model = random_model(VARIANTS[name])
    with inference_mode(model):
        expected = decoded(model, SOURCES, [2, 2, 0])
        for precision, near in (("fp32", 1e-5), ("fp16", 3e-3), ("int8", 0.1)):
            form = inference_model(model, precision)  # type: ignore[arg-type]  # one of them
            assert isinstance(form.base_model, EncoderDecoderForInference)  # type: ignore[attr-defined]  # a view
            found = decoded(form, SOURCES, [2, 2, 0])
            assert float((found - expected).std()) < near * float(expected.std()), precision
            assert (precision_note(form) is None) == (precision == "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_sequence_does_not_depend_on_the_others(precision: Any, compiled_kernels: None) -> None:
    form = inference_model(random_model(VARIANTS["clear"]), precision)
    ids = [3, 8, 2]

    def logits(sources: list[list[int]], row: int) -> torch.Tensor:
        state: Any = form.init_state(len(sources), source=TokenBatch.from_sequences(sources))  # type: ignore[call-arg]
        found = []
        for id in ids:
            hidden, state = form.forward(TokenBatch(torch.tensor([[id]] * len(sources))), state)
            found.append(form.logits(hidden)[row, 0])
        return torch.stack(found)

    for row, source in enumerate(SOURCES):
        assert torch.equal(logits([source], 0), logits(SOURCES * 5, row + 8))


def test_tokens_at_once_are_those_one_by_one(compiled_kernels: None) -> None:
    form: Any = inference_model(random_model(VARIANTS["t5"]), "fp32")
    source = TokenBatch.from_sequences(SOURCES[:2])
    ids = torch.tensor([[0, 4, 5, 6], [0, 7, 8, 9]])
    whole, state = form.forward(TokenBatch(ids), form.init_state(2, source=source))
    one = form.init_state(2, source=source)
    for index in range(4):
        hidden, one = form.forward(TokenBatch(ids[:, index : index + 1]), one)
        torch.testing.assert_close(hidden[:, 0], whole[:, index], rtol=0, atol=1e-5)
    for name, expected in state.tensors().items():
        torch.testing.assert_close(one.tensors()[name], expected, rtol=0, atol=1e-5)


def test_the_cache_holds_what_the_models_does(compiled_kernels: None) -> None:
    model = random_model(VARIANTS["marian"])
    form: Any = inference_model(model, "fp32")
    tokens = TokenBatch.from_sequences([[0, 4, 5], [0], [0, 9], [0, 1]])
    source = TokenBatch.from_sequences(SOURCES)
    with inference_mode(model):
        expected = model.forward(tokens, model.init_state(4, source=source))[1].tensors()  # type: ignore[union-attr]
        state = form.forward(tokens, form.init_state(4, source=source))[1]
    assert isinstance(state, TokenCache)
    assert state.detach() is state
    found = state.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


def test_what_has_no_such_form(monkeypatch: pytest.MonkeyPatch, compiled_kernels: None) -> None:
    model = random_model(VARIANTS["t5"])
    form: Any = inference_model(model, "fp32")
    for given in (None, TokenBatch.from_sequences(SOURCES[:1])):
        with pytest.raises(CannotDo, match="but got"):
            form.init_state(2, source=given)
    with pytest.raises(CannotDo, match="but got none"):
        form.forward(TokenBatch.from_sequences([[0]]))
    state = form.init_state(1, source=TokenBatch.from_sequences([[3]]))
    with pytest.raises(ContextOverflow):
        form.forward(TokenBatch(torch.zeros(1, 301, dtype=torch.long)), state)
    recurrent: Any = inference_model(random_model(replace(VARIANTS["marian"], decoder_autoregression="ssru")), "int8")
    assert isinstance(recurrent.base_model, EncoderDecoder)
    others = [inference_model(model, "bf16"), inference_model(adapt(random_model(VARIANTS["t5"]), 2), "fp32")]
    monkeypatch.setenv("CLEARSTORY_NATIVE", "0")
    others += [inference_model(model, "fp32"), inference_model(model, "int8")]
    with inference_mode(model):
        expected = decoded(model, SOURCES[:2], [1, 0])
        for other in others:
            assert not isinstance(other.base_model, EncoderDecoderForInference)  # type: ignore[attr-defined]  # a view
            found = decoded(other, SOURCES[:2], [1, 0])
            assert float((found - expected).std()) < 0.05 * float(expected.std())
