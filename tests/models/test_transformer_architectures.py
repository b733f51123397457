"""The Transformer as encoder and encoder-decoder, in float64: padding, decoding in pieces, states, parameter counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import VOCAB, shaken

from clearstory.errors import BadSetting, CannotDo, ContextOverflow
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.families import PRESETS
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.positions import RelativePositionBias, sinusoidal_embedding
from clearstory.models.transformer.presets import BERT_TINY, MARIAN, MINILM, T5_11_SMALL, T5_SMALL, TRANSFORMER_BASE
from clearstory.models.transformer.sizing import parameter_count as on_paper

SMALL: dict[str, Any] = {
    "vocab": VOCAB, "context": 24, "width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "layers": 2,
}  # fmt: skip

ENCODERS = {
    "bert": replace(BERT_TINY, **SMALL),
    "minilm": replace(MINILM, **SMALL),
    "rotary": replace(
        BERT_TINY, **SMALL, positions="rotary", norm="rms", norm_first=True, tie_embeddings=False, pooler=False
    ),
}

WRITERS = {
    "2017": replace(TRANSFORMER_BASE, **SMALL),
    "t5": replace(T5_SMALL, **SMALL),
    "t5 1.1": replace(T5_11_SMALL, **{**SMALL, "heads": 3, "kv_heads": 3}),
    "marian": replace(MARIAN, **SMALL, decoder_layers=1),
    "grouped": replace(TRANSFORMER_BASE, **{**SMALL, "kv_heads": 1}, positions="rotary"),
}

SOURCE = TokenBatch.from_sequences([[5, 6, 7, 8, 9], [1, 2]])
WRITTEN = TokenBatch(torch.tensor([[0, 4, 5, 6], [0, 9, 8, 7]]))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_ignores_padding(name: str) -> None:
    model: Any = shaken(ENCODERS[name])
    both = model.encode(TokenBatch.from_sequences([[3, 4, 5, 6, 7], [8, 9]]))
    alone = model.encode(TokenBatch.from_sequences([[8, 9]]))
    torch.testing.assert_close(both[1, :2], alone[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_bidirectional(name: str) -> None:
    model: Any = shaken(ENCODERS[name])
    before, after = (model.encode(TokenBatch.from_sequences([[3, 4, 5, last]])) for last in (6, 7))
    assert (before - after).abs().amax(-1).min() > 1e-6


def test_token_types_and_positions_change_hidden_states() -> None:
    model: Any = shaken(ENCODERS["bert"])
    tokens = TokenBatch.from_sequences([[3, 3, 3]])
    plain = model.encode(tokens)
    assert not torch.allclose(plain[0, 0], plain[0, 1])
    torch.testing.assert_close(plain, model.encode(tokens, torch.zeros(1, 3, dtype=torch.long)))
    assert not torch.allclose(plain, model.encode(tokens, torch.tensor([[0, 1, 1]])))


def test_masked_nll_equals_the_softmax() -> None:
    model: Any = shaken(ENCODERS["bert"])
    tokens, targets = TokenBatch.from_sequences([[3, 4, 5, 6]]), torch.tensor([[IGNORE_INDEX, 7, IGNORE_INDEX, 2]])
    nats, state = model.token_nll(tokens, targets)
    logs = model.logits(model.encode(tokens)).log_softmax(-1)
    torch.testing.assert_close(
        nats, torch.stack([logs[0, 0, 0] * 0, -logs[0, 1, 7], logs[0, 2, 0] * 0, -logs[0, 3, 2]])[None]
    )
    assert state is None
    nothing, _ = model.token_nll(tokens, torch.full_like(targets, IGNORE_INDEX))
    assert nothing.tolist() == [[0.0] * 4]


def test_an_encoder_refuses_to_generate() -> None:
    model = build(ENCODERS["bert"], seed=1)
    with pytest.raises(CannotDo, match="fill"):
        model.init_state()
    with pytest.raises(CannotDo, match="pooler"):
        build(ENCODERS["rotary"], seed=1).nsp_logits(torch.zeros(1, 2, 16))
    with pytest.raises(ContextOverflow, match="25"):
        model.encode(TokenBatch.from_sequences([[1] * 25]))


@pytest.mark.parametrize("name", WRITERS)
def test_decoding_in_pieces_equals_decoding_at_once(name: str) -> None:
    model: Any = shaken(WRITERS[name])
    at_once, nothing = model.forward(WRITTEN, source=SOURCE)
    assert nothing is None
    state = model.init_state(2, source=SOURCE)
    for piece in (slice(0, 1), slice(1, 3), slice(3, 4)):
        hidden, state = model.forward(TokenBatch(WRITTEN.ids[:, piece]), state)
        torch.testing.assert_close(hidden, at_once[:, piece], rtol=1e-9, atol=1e-9)
    assert state.lengths == [4, 4]


@pytest.mark.parametrize("name", WRITERS)
def test_a_source_in_a_batch_equals_the_source_alone(name: str) -> None:
    model: Any = shaken(WRITERS[name])
    both, _ = model.forward(WRITTEN, source=SOURCE)
    alone, _ = model.forward(TokenBatch(WRITTEN.ids[1:]), source=TokenBatch.from_sequences([[1, 2]]))
    torch.testing.assert_close(both[1:], alone, rtol=1e-9, atol=1e-9)
    other, _ = model.forward(TokenBatch(WRITTEN.ids[1:]), source=TokenBatch.from_sequences([[1, 3]]))
    assert not torch.allclose(alone, other)


@pytest.mark.parametrize("name", WRITERS)
def test_states_with_sources_are_selected_and_joined(name: str) -> None:
    model: Any = shaken(WRITERS[name])
    _, both = model.forward(TokenBatch(WRITTEN.ids[:, :2]), model.init_state(2, source=SOURCE))
    swapped = type(both).join([both.select([1]), both.select([0])])
    here, _ = model.forward(TokenBatch(WRITTEN.ids[:, 2:]), both)
    there, _ = model.forward(TokenBatch(WRITTEN.ids[:, 2:].flip(0)), swapped)
    torch.testing.assert_close(here, there.flip(0), rtol=1e-9, atol=1e-9)
    assert any(name.endswith("source") for name in both.tensors())


@pytest.mark.parametrize("name", WRITERS)
def test_token_nll_equals_the_softmax(name: str) -> None:
    model: Any = shaken(WRITERS[name])
    targets = torch.tensor([[4, 5, 6, IGNORE_INDEX], [9, 8, 7, 3]])
    nats, _ = model.token_nll(WRITTEN, targets, source=SOURCE)
    logs = model.logits(model.forward(WRITTEN, source=SOURCE)[0]).log_softmax(-1)
    wanted = -logs.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (targets != IGNORE_INDEX)
    torch.testing.assert_close(nats, wanted, rtol=1e-9, atol=1e-9)


def test_an_encoder_decoder_without_a_source_is_refused() -> None:
    model = build(WRITERS["t5"], seed=1)
    with pytest.raises(CannotDo, match="source"):
        model.init_state(1)
    with pytest.raises(CannotDo, match="but got 2"):
        model.init_state(1, source=SOURCE)
    with pytest.raises(CannotDo, match="source"):
        model.forward(WRITTEN)


@pytest.mark.parametrize("name", [*ENCODERS, *WRITERS])
def test_eight_sequences_are_memorised(name: str) -> None:
    config = {**ENCODERS, **WRITERS}[name]
    model: Any = build(config, seed=1)
    ids = torch.randint(1, VOCAB, (8, 6), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        if isinstance(model, Encoder):
            masked, targets = ids.clone(), torch.full_like(ids, IGNORE_INDEX)
            masked[:, 2], targets[:, 2] = 0, ids[:, 2]
            nats, _ = model.token_nll(TokenBatch(masked), targets)
        else:
            assert isinstance(model, EncoderDecoder)
            nats, _ = model.token_nll(TokenBatch(ids), ids.roll(1, 1), source=TokenBatch(ids.flip(1)))
        optimizer.zero_grad()
        nats.sum().backward()
        optimizer.step()
        losses.append(float(nats.detach().sum()))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", [*ENCODERS, *WRITERS])
def test_every_parameter_is_counted_and_used(name: str) -> None:
    config = {**ENCODERS, **WRITERS}[name]
    model: Any = shaken(config)
    assert count_parameters(model) == on_paper(config)
    if isinstance(model, Encoder):
        hidden = model.encode(SOURCE, torch.ones_like(SOURCE.ids) if config.token_types else None)
        loss = model.logits(hidden).square().sum()
        loss = loss + (model.nsp_logits(hidden).square().sum() if config.pooler and config.mlm_transform else 0)
        loss = loss + (model.pool(hidden).square().sum() if config.pooler else 0)
    else:
        loss = model.logits(model.forward(WRITTEN, source=SOURCE)[0]).log_softmax(-1).square().sum()
    loss.backward()
    idle = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    assert idle == []


@pytest.mark.parametrize(
    ("name", "counted"),
    [("bert-base", 110_106_428), ("t5-small", 60_506_624)],
)
def test_published_counts(name: str, counted: int) -> None:
    config = PRESETS[name]
    assert isinstance(config, TransformerConfig)
    assert on_paper(config) == counted == count_parameters(build(config, device="meta"))


def test_relative_position_buckets() -> None:
    both, back = RelativePositionBias(1, bidirectional=True), RelativePositionBias(1, bidirectional=False)
    distances = torch.tensor([[-200, -128, -9, -8, -1, 0, 1, 8, 9, 128]])
    # Worked by hand from Raffel et al. 2020: 16 buckets a side, 8 exact, then steps of 16 to the 1/8th power.
    assert both.bucket(distances).tolist() == [[15, 15, 8, 8, 1, 0, 17, 24, 24, 31]]
    assert back.bucket(distances).tolist() == [[31, 31, 9, 8, 1, 0, 0, 0, 0, 0]]


def test_sinusoidal_positions_equal_the_paper_in_halves() -> None:
    table = sinusoidal_embedding(5, 6)
    for pair in range(3):
        angle = 3 / 10_000 ** (2 * pair / 6)
        assert table[3, pair] == pytest.approx(torch.tensor(angle).sin().item(), abs=1e-6)
        assert table[3, 3 + pair] == pytest.approx(torch.tensor(angle).cos().item(), abs=1e-6)


def test_settings_of_one_architecture_are_refused_for_another() -> None:
    with pytest.raises(BadSetting, match="token_types"):
        replace(WRITERS["t5"], token_types=2)
    with pytest.raises(BadSetting, match="decoder_layers"):
        replace(ENCODERS["bert"], decoder_layers=2)
