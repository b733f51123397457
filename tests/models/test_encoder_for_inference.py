"""The inference form of encoders: one call of the compiled kernels, in fp32 and in int8; PyTorch's kernels without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import CannotDo
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.build import build
from clearstory.models.heads import SequenceClassifier, TokenClassifier
from clearstory.models.inference_encoder import inference_encoder
from clearstory.models.native.panels import PanelMatrix
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_inference import EncoderForInference
from clearstory.models.transformer.presets import BERT_TINY, NANOGPT_CHAR

SMALL = replace(
    BERT_TINY, vocab=50, context=64, width=48, heads=3, kv_heads=3, head_dim=16, layers=2, intermediate_size=80
)
VARIANTS = {
    "bert": SMALL,
    "wide heads": replace(SMALL, width=80, heads=1, kv_heads=1, head_dim=80),
    "norm first": replace(SMALL, norm_first=True, embed_norm=False, activation="gelu_tanh"),
    "gated": replace(SMALL, norm="rms", gated=True, activation="silu", bias=False),
}
SEQUENCES = [[3, *range(4, 4 + length)] for length in (1, 30, 13, 13, 0, 40)]


def random_model(config: Any) -> Encoder:
    """An encoder with weights of which none is 0 or 1."""
    model = build(config, seed=1).eval()
    assert isinstance(model, Encoder)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_it_computes_what_the_encoder_does(name: str, compiled_kernels: None) -> None:
    model = random_model(VARIANTS[name])
    form = inference_encoder(model)
    assert isinstance(form, EncoderForInference)
    # The last are more tokens than go through all layers together.
    for sequences in (SEQUENCES, [SEQUENCES[1], SEQUENCES[1][::-1]], SEQUENCES * 8):
        tokens = TokenBatch.from_sequences(sequences)
        types = (tokens.ids % 2) if model.config.token_types else None
        with inference_mode(model):
            expected, found = model.encode(tokens, types), form.encode(tokens, types)
            inside = torch.arange(found.shape[1]) <= tokens.last_positions()[:, None]
            torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(form.encode_first(tokens, types), expected[:, 0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model.encode_first(tokens, types), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_sequence_does_not_depend_on_the_others(compiled_kernels: None) -> None:
    form = inference_encoder(random_model(SMALL))
    together = form.encode(TokenBatch.from_sequences(SEQUENCES))
    for row, sequence in enumerate(SEQUENCES):
        alone = form.encode(TokenBatch.from_sequences([sequence]))
        assert torch.equal(alone[0], together[row, : len(sequence)])


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_int8_is_near(architecture: str, kernels_by: str) -> None:
    config = SMALL if architecture == "encoder" else replace(NANOGPT_CHAR, layers=2, context=64)
    model = SequenceClassifier(build(config, seed=1), ("bad", "good")).eval()
    tokens = TokenBatch.from_sequences([sequence for sequence in SEQUENCES if max(sequence) < config.vocab])
    rounded = inference_encoder(model, int8=True, n_tokens=1)
    assert rounded is not model
    with inference_mode(model):
        exact, near = model.features(tokens), rounded.features(tokens)
    assert not torch.equal(exact, near)
    assert bool((torch.cosine_similarity(exact, near) > 0.99).all())


def test_bytes_are_exact_products(compiled_kernels: None) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(70, 45, generator=generator), torch.randn(70, generator=generator)
    x = torch.randn(29, 45, generator=generator)
    exact = x @ weight.T + bias
    torch.testing.assert_close(PanelMatrix(weight, bias, "fp32").multiply(x), exact, rtol=1e-5, atol=1e-5)
    error = (PanelMatrix(weight, bias, "int8").multiply(x) - exact).std() / exact.std()
    assert 1e-4 < error < 0.02
    # Of inputs and weights that 8 bits hold, nothing is lost.
    whole = torch.randint(0, 256, (29, 45), generator=generator).float()
    whole[:, 0], whole[:, 1] = 0, 255
    integers = torch.randint(-127, 128, (70, 45), generator=generator).float()
    integers[:, 0] = 127
    found = PanelMatrix(integers, None, "int8").multiply(whole)
    torch.testing.assert_close(found, whole @ integers.T, rtol=1e-4, atol=2.0)
    whole[3, 5] = torch.nan
    assert bool(PanelMatrix(integers, None, "int8").multiply(whole)[3].isnan().all())


def test_a_classifier_has_its_backbone_replaced(compiled_kernels: None) -> None:
    model = random_model(SMALL)
    tokens = TokenBatch.from_sequences(SEQUENCES[:3])
    for classifier in (SequenceClassifier(model, ("a", "b", "c")), TokenClassifier(model, ("O", "B-X"))):
        form = inference_encoder(classifier.eval())
        assert isinstance(form.backbone, EncoderForInference)
        assert not isinstance(classifier.backbone, EncoderForInference)
        with inference_mode(classifier):
            found, expected = form.class_logits(tokens), classifier.class_logits(tokens)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)


def test_what_has_no_such_form(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(SMALL)
    assert inference_encoder(model, n_tokens=5) is model
    double = random_model(SMALL).double()
    assert inference_encoder(double) is double
    monkeypatch.setenv("CLEARSTORY_NATIVE", "0")
    assert inference_encoder(model) is model
    with pytest.raises(CannotDo, match="no Transformer blocks"):
        inference_encoder(torch.nn.Linear(2, 2), int8=True)
