"""Recurrent encoder-decoders: equal to the papers' equations and to torch's modules, with gradients checked by
differences; beam search is exhaustive where it can be.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import RECURRENT_WRITERS, VOCAB, shaken
from torch import Tensor, nn
from torch.testing import assert_close

from clearstory.errors import BadSetting, CannotDo, VocabularyMismatch
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.generation.beam_search import beam_search
from clearstory.generation.settings import Sampling
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.families import PRESETS, scale_config
from clearstory.models.recurrent.cells import RecurrentLayer
from clearstory.models.recurrent.recurrence import SourceTerms, run_recurrence
from clearstory.models.recurrent.seq2seq_config import RECURRENT_SEQ2SEQ_PRESETS as SEQ2SEQ
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig, seq2seq_parameter_count
from clearstory.training.objectives.seq2seq import Seq2Seq
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

CELLS: list[Any] = ["rnn", "gru", "lstm"]
SOURCES = [[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]]
SOURCE = TokenBatch.from_sequences(SOURCES)
TARGET = TokenBatch(torch.randint(VOCAB, (3, 6), generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_by_hand_are_those_of_differences(cell: Any) -> None:
    steps, batch, units, tokens, size = 3, 2, 3, 4, 5
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell] * units
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        before, terms = inputs[:-4], SourceTerms(*inputs[-4:], padding)
        found = run_recurrence(cell, *before[:4], before[4] if cell == "lstm" else None, terms)
        return tuple(each for each in found if each is not None)

    state = [random(batch, units) for _ in range(1 + (cell == "lstm"))]
    terms = [random(batch, tokens, size), random(batch, tokens, gates), random(size, units), random(size)]
    inputs = [random(steps, batch, gates), random(gates, units), random(gates), *state, *terms]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def torch_cell(layer: RecurrentLayer) -> Any:
    """torch's own cell with the weights of a layer."""
    kinds: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
    cell = kinds[layer.cell](layer.input.in_features, layer.recurrent.in_features).double()
    named = {"ih": layer.input, "hh": layer.recurrent}
    cell.load_state_dict(
        {f"{kind}_{name}": getattr(each, kind) for name, each in named.items() for kind in ("weight", "bias")}
    )
    return cell


def last_states(layers: Any, x: Tensor) -> tuple[Tensor, list[Any]]:
    """Outputs of stacked layers, (S, B, U), and each one's last state, a tensor or an LSTM's pair, by torch's cells."""
    states = []
    for layer in layers:
        cell, state, out = torch_cell(layer), None, []
        for token in x:
            state = cell(token, state)
            out.append(state[0] if isinstance(state, tuple) else state)
        x = torch.stack(out)
        states.append(state)
    return x, states


@pytest.mark.parametrize("cell", CELLS)
def test_additive_attention_is_bahdanaus(cell: Any) -> None:
    """Bahdanau et al. 2015, appendix A.1.2 and A.2: one source, one target, step by step."""
    model: Any = shaken(replace(RECURRENT_WRITERS["additive"], cell=cell))
    embedding, attention, decoder = model.embedding.weight, model.decoder.cross_attention, model.decoder
    source, target = embedding[torch.tensor(SOURCES[0])], embedding[TARGET.ids[0]]
    both = model.encoder.layers[0]
    ahead, [first] = last_states([both.forwards], source[:, None])
    back, [second] = last_states([both.backwards], source.flip(0)[:, None])
    h = torch.cat([ahead, back.flip(0)], -1)[:, 0]
    pairs = zip(first, second, strict=True) if cell == "lstm" else []
    s: Any = tuple(torch.cat(each, -1) for each in pairs) or torch.cat([first, second], -1)
    step, found = torch_cell(decoder.layers[0]), []
    for y in target:
        previous = s[0][0] if isinstance(s, tuple) else s[0]
        energies = [
            attention.energy @ torch.tanh(attention.query.weight @ previous + attention.key.weight @ h_j) for h_j in h
        ]
        weights = torch.stack(energies).softmax(0)
        context = sum(weight * h_j for weight, h_j in zip(weights, h, strict=True))
        s = step(torch.cat([y, context])[None], s)
        state = s[0][0] if isinstance(s, tuple) else s[0]
        found.append(torch.tanh(decoder.readout(torch.cat([state, context, y]))))
    ours, _ = model.forward(TokenBatch(TARGET.ids[:1]), source=TokenBatch.from_sequences(SOURCES[:1]))
    assert_close(ours[0], torch.stack(found), rtol=1e-9, atol=1e-9)


def test_dot_attention_is_luongs() -> None:
    """Luong et al. 2015, eq. 5 and 8: global attention, its query the decoder's output; two layers."""
    model: Any = shaken(RECURRENT_WRITERS["dot"])
    embedding, decoder = model.embedding.weight, model.decoder
    h, states = last_states(model.encoder.layers, embedding[torch.tensor(SOURCES[0])][:, None])
    x = embedding[TARGET.ids[0]]
    for layer, state in zip(decoder.layers, states, strict=True):
        cell, out = torch_cell(layer), []
        for token in x:
            state = cell(token[None], state)
            out.append(state[0][0])
        x = torch.stack(out)
    weights = (x @ decoder.cross_attention.key.weight @ h[:, 0].T).softmax(-1)
    y = embedding[TARGET.ids[0]]
    wanted = torch.tanh(decoder.readout(torch.cat([x, weights @ h[:, 0], y], -1)))
    ours, _ = model.forward(TokenBatch(TARGET.ids[:1]), source=TokenBatch.from_sequences(SOURCES[:1]))
    assert_close(ours[0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["sutskever", "cho"])
def test_without_attention_the_last_state_is_all_that_is_read(name: str) -> None:
    model: Any = shaken(RECURRENT_WRITERS[name])
    c, embedding, decoder = model.config, model.embedding.weight, model.decoder
    source = embedding[torch.tensor(SOURCES[0])][:, None]
    _, states = last_states(model.encoder.layers, source.flip(0) if c.reverse_source else source)
    y = embedding[TARGET.ids[0]]
    summary = states[-1] if c.cell == "gru" else states[-1][0]
    contexts = summary.expand(len(y), -1) if c.feed_summary else summary.new_empty(len(y), 0)
    x = torch.cat([y, contexts], -1)
    for layer, state in zip(decoder.layers, states, strict=True):
        cell, out = torch_cell(layer), []
        for token in x:
            state = cell(token[None], state)
            out.append(state[0] if c.cell == "gru" else state[0][0])
        x = torch.stack(out)
    wanted = torch.tanh(decoder.readout(torch.cat([x, contexts, y], -1)))
    ours, _ = model.forward(TokenBatch(TARGET.ids[:1]), source=TokenBatch.from_sequences(SOURCES[:1]))
    assert_close(ours[0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_encoder_equals_torchs_bidirectional_module(cell: Any) -> None:
    model: Any = shaken(replace(RECURRENT_WRITERS["additive"], cell=cell, layers=2))
    c, kinds = model.config, {"gru": nn.GRU, "lstm": nn.LSTM}
    module: Any = kinds[cell](c.width, c.hidden_size // 2, 2, bidirectional=True).double()
    for index, both in enumerate(model.encoder.layers):
        for layer, suffix in ((both.forwards, ""), (both.backwards, "_reverse")):
            for name, each in (("ih", layer.input), ("hh", layer.recurrent)):
                for kind in ("weight", "bias"):
                    getattr(module, f"{kind}_{name}_l{index}{suffix}").data.copy_(getattr(each, kind))
    x = model.embedding(SOURCE.ids.t())
    packed = nn.utils.rnn.pack_padded_sequence(x, SOURCE.lengths, enforce_sorted=False)  # type: ignore[arg-type]
    out, last = module(packed)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(out)
    found = model.encoder(x, SOURCE.lengths)
    for row, source in enumerate(SOURCES):
        assert_close(found.outputs[: len(source), row], wanted[: len(source), row])
    hidden = last[0] if cell == "lstm" else last
    for index, state in enumerate(found.states):
        assert_close(state.hidden, torch.cat([hidden[2 * index], hidden[2 * index + 1]], -1))


@pytest.mark.parametrize("name", RECURRENT_WRITERS)
def test_whole_targets_give_what_single_tokens_give_and_padding_changes_nothing(name: str) -> None:
    model: Any = shaken(RECURRENT_WRITERS[name])
    whole, none = model.forward(TARGET, source=SOURCE)
    assert none is None
    pieces, state = [], model.init_state(3, source=SOURCE)
    for count in (1, 3, 2):
        at = sum(each.shape[1] for each in pieces)
        hidden, state = model.forward(TokenBatch(TARGET.ids[:, at : at + count]), state)
        pieces.append(hidden)
    assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
    for row, source in enumerate(SOURCES):
        alone, _ = model.forward(TokenBatch(TARGET.ids[row, None]), source=TokenBatch.from_sequences([source]))
        assert_close(alone[0], whole[row], rtol=1e-9, atol=1e-9)
    # States of sources of other lengths are joined and chosen from.
    one, two = (model.init_state(1, source=TokenBatch.from_sequences([SOURCES[row]])) for row in (1, 0))
    joined = type(one).join([one, two]).select([1, 0])
    hidden, after = model.forward(TokenBatch(TARGET.ids[:2]), joined)
    assert_close(hidden, whole.detach()[:2], rtol=1e-9, atol=1e-9)
    assert after.lengths == [6, 6]
    restored = one.restored(after.select([1]).tensors())
    again, expected = (model.forward(TokenBatch(TARGET.ids[:1]), each)[0] for each in (restored, after.select([1])))
    assert torch.equal(again, expected)
    targets = TARGET.ids.roll(-1, 1).masked_fill(TARGET.ids == 4, IGNORE_INDEX)
    nats, _ = model.token_nll(TARGET, targets, source=SOURCE)
    logs = model.logits(whole).log_softmax(-1)
    wanted = -logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets != IGNORE_INDEX)
    assert_close(nats, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RECURRENT_WRITERS)
def test_every_weight_has_a_gradient_in_either_precision(name: str) -> None:
    model: Any = shaken(replace(RECURRENT_WRITERS[name], dropout=0.2)).float().train()
    for dtype in (None, torch.bfloat16):
        model.compute_dtype = dtype
        hidden, _ = model.forward(TARGET, source=SOURCE)
        assert hidden.dtype == (dtype or torch.float32)
        model.token_nll(TARGET, TARGET.ids, source=SOURCE)[0].sum().backward()
        for parameter, weight in model.named_parameters():
            assert weight.grad is not None, parameter
            assert bool(weight.grad.isfinite().all()), parameter
            assert bool(weight.grad.any()), parameter
        model.zero_grad()
    model.eval()
    rounded, model.compute_dtype = model.forward(TARGET, source=SOURCE)[0], None
    assert_close(rounded.float(), model.forward(TARGET, source=SOURCE)[0], rtol=0, atol=0.15)


@pytest.mark.parametrize("name", ["additive", "cho"])
def test_a_wide_beam_finds_the_best_of_all_targets(name: str) -> None:
    model: Any = shaken(replace(RECURRENT_WRITERS[name], vocab=5))
    end, start, source = 1, 0, [2, 3, 4]
    totals = {}
    for ids in product(range(5), repeat=3):
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        given = TokenBatch.from_sequences([[start, *ids[:-1]]])
        nats, _ = model.token_nll(given, torch.tensor([ids]), source=TokenBatch.from_sequences([source]))
        totals[ids] = -float(nats.detach().sum())
    best = sorted(totals, key=lambda ids: -totals[ids])[:3]
    settings = Sampling(max_tokens=3, beam=125, length_penalty=0.0)
    found = beam_search(model, [], settings, eos_token_id=end, start_token_id=start, source=source)
    assert [each.ids for each in found[:3]] == best
    assert [each.score for each in found[:3]] == pytest.approx([totals[ids] for ids in best], rel=1e-9)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("more", [{}, {"layers": 2, "tie_embeddings": False}])
def test_parameters_are_counted_without_building(name: str, more: dict[str, Any]) -> None:
    config: Any = replace(PRESETS[name], vocab=101, width=16, hidden_size=24, **more)  # type: ignore[type-var]
    assert seq2seq_parameter_count(config) == count_parameters(build(config))
    scaled: Any = scale_config(config, 2_000_000)
    assert abs(seq2seq_parameter_count(scaled) / 2_000_000 - 1) < 0.1
    assert (scaled.layers, scaled.attention) == (config.layers, config.attention)


def test_invalid_settings_and_sources_are_refused() -> None:
    sizes: dict[str, Any] = {"vocab": 9, "width": 4, "hidden_size": 6}
    for wrong, match in (
        ({"hidden_size": 5}, "make it even"),
        ({"reverse_source": True}, "set model.bidirectional to false"),
        ({"feed_summary": True}, "set model.attention to none"),
        ({"dropout": 1.0}, "at least 0 and under 1"),
        ({"decoder_start_token_id": 9}, "one of the 9 tokens"),
        ({"layers": 0}, "between 1 and"),
    ):
        with pytest.raises(BadSetting, match=match):
            RecurrentSeq2SeqConfig(**{**sizes, **wrong})
    model: Any = build(RecurrentSeq2SeqConfig(**sizes))
    for call in (lambda: model.init_state(1), lambda: model.forward(TokenBatch(torch.zeros(1, 2, dtype=torch.long)))):
        with pytest.raises(CannotDo, match="is an encoder-decoder and needs"):
            call()
    with pytest.raises(VocabularyMismatch, match="9"):
        model.init_state(1, source=TokenBatch.from_sequences([[9]]))


@pytest.mark.parametrize(("name", "precision"), [("additive", "bf16"), ("dot", "fp32")])
def test_training_learns_to_reverse_and_a_resumed_run_is_the_same(name: str, precision: Any) -> None:
    def trainer() -> Trainer:
        model = build(replace(RECURRENT_WRITERS[name], width=16, hidden_size=24, dropout=0.1), seed=1)
        settings = TrainingSettings(
            batch_size=8, learning_rate=0.02, muon_learning_rate=0.04, warmup_steps=2, optimizer="muon",
            precision=precision, label_smoothing=0.1, weight_decay=0,
        )  # fmt: skip
        return Trainer(model, Seq2Seq(0, 0.1), reversed_pairs(), settings, steps=12)

    straight = trainer()
    losses = [progress.loss for progress in straight]
    first, second = trainer(), trainer()
    begun = [first.train_step().loss for _ in range(5)]
    tensors, values = first.checkpoint_state()
    second.load_checkpoint_state({key: value.clone() for key, value in tensors.items()}, values)
    assert begun + [progress.loss for progress in second] == losses
    for key, value in straight.checkpoint_state()[0].items():
        assert torch.equal(value, second.checkpoint_state()[0][key]), key
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < 0.95 * losses[0]


def test_a_model_folder_opens_as_it_was_saved(tmp_path: Path) -> None:
    for name, config in RECURRENT_WRITERS.items():
        model: Any = build(replace(config, decoder_start_token_id=3), seed=2).eval()
        opened = open_model(save_model(tmp_path / name, model, None, ModelCard()))
        assert opened.model.config == model.config
        assert opened.generation_config is not None
        assert json.loads((tmp_path / name / "generation_config.json").read_text())["decoder_start_token_id"] == 3
        with torch.no_grad():
            logits = model.logits(model.forward(TARGET, source=SOURCE)[0])
        assert_close(opened.logits(TARGET.ids, source=SOURCES), logits, rtol=1e-5, atol=1e-6)
        stored = opened.model.state_dict()
        assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def reversed_pairs() -> Any:
    """Forty sources of random length, and each reversed as its target; token 1 ends both."""
    rng = np.random.default_rng(3)
    ids: list[int] = []
    starts = [0]
    for _ in range(40):
        text = rng.integers(2, VOCAB, rng.integers(1, 6)).tolist()
        for side in (text, text[::-1]):
            ids += [*side, 1]
            starts.append(len(ids))
    return SimpleNamespace(ids=np.array(ids, np.uint16), starts=np.array(starts), byte_lengths=np.ones(VOCAB))
