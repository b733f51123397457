"""The mixture: its cache and windows against counts and windows by hand, its gate, and how it is trained and kept."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError
from clearstory.evaluation.windows import iter_token_nll
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.experts import experts
from clearstory.lens.views import Table
from clearstory.models.base import TokenBatch
from clearstory.models.mixture.cache import (
    ORDERS,
    cache_counts,
    cache_log_probs,
    cached_matches,
    count_matches,
    history_length,
)
from clearstory.models.mixture.config import MixtureConfig
from clearstory.models.mixture.gate import Gate
from clearstory.recipes.conversion.convert import convert
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.recipes.inference.generate import generate
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.preparation import starting_after
from clearstory.training import gate_fitting
from clearstory.training.gate_fitting import maximise_likelihood, split_held_out
from clearstory.training.mixture_trainer import MixtureTrainer
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from tiny import TINY_CLEAR, TINY_NGRAM, VOCAB, mixed
from trained import TRAINING, all_events, metrics_without_times, text_file


def cached_by_hand(ids: list[int], size: int, order: int) -> dict[int, float]:
    """Shares of the tokens that followed the last order − 1 tokens among the last `size` tokens."""
    counts: dict[int, int] = {}
    context = ids[len(ids) - order + 1 :]
    for at in range(max(order - 1, len(ids) - size), len(ids)):
        if ids[at - order + 1 : at] == context:
            counts[ids[at]] = counts.get(ids[at], 0) + 1
    return {id: count / sum(counts.values()) for id, count in counts.items()}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_the_cache_holds_the_shares_of_the_last_tokens(size: int) -> None:
    text = torch.randint(4, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    before = torch.full((1, history_length(size)), -1)
    cached, depth = cached_matches(torch.cat([before, torch.tensor([text])], 1), size, len(text))
    probs = cache_log_probs(cached[0], depth[0], 4).exp()
    for position in range(len(text)):
        for order in range(1, ORDERS + 1):
            wanted = cached_by_hand(text[: position + 1], size, order)
            got = probs[position, :, order - 1].tolist()
            assert got == pytest.approx([wanted.get(id, 0.0) for id in range(4)])


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_counts_by_numbered_n_grams_equal_those_by_comparison(size: int) -> None:
    random = torch.Generator().manual_seed(size)
    new, reach = 30, history_length(size)
    ids = torch.randint(3, (4, reach + new), generator=random)
    for row, missing in enumerate((0, reach // 2, reach, reach)):
        ids[row, :missing] = -1
    targets = torch.randint(4, (4, new), generator=random)
    targets[1, 5] = -100
    cached, depth = cached_matches(ids, size, new)
    counts, hits = count_matches(ids, targets, size)
    assert_close(counts, cache_counts(depth), check_dtype=False)
    assert_close(hits, cache_counts(depth.where(cached == targets[..., None], -1)), check_dtype=False)


def test_windows_side_by_side_equal_windows_one_by_one() -> None:
    model: Any = mixed(8, clear=replace(TINY_CLEAR, context=7), ngram=TINY_NGRAM).requires_grad_(False)
    ids = torch.randint(VOCAB, (2, 61), generator=torch.Generator().manual_seed(2))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    nats, after = model.token_nll(TokenBatch(inputs), targets, model.init_state(2))
    hidden, _ = model.forward(TokenBatch(inputs), model.init_state(2))
    state, one_by_one, hiddens = model.init_state(2), [], []
    for at in range(inputs.shape[1]):
        part = TokenBatch(inputs[:, at : at + 1])
        hiddens.append(model.forward(part, state)[0])
        each, state = model.token_nll(part, targets[:, at : at + 1], state)
        one_by_one.append(each)
    assert_close(nats, torch.cat(one_by_one, 1), rtol=1e-9, atol=1e-9)
    assert_close(hidden, torch.cat(hiddens, 1), rtol=1e-9, atol=1e-9)
    more = TokenBatch(ids[:, -1:])
    assert_close(model.forward(more, after)[0], model.forward(more, state)[0], rtol=1e-9, atol=1e-9)


def test_a_probability_is_the_sum_of_weight_times_probability() -> None:
    model: Any = mixed(8, clear=TINY_CLEAR, ngram=TINY_NGRAM).requires_grad_(False)
    ids = [5, 6, 5, 6, 5]
    hidden, _ = model.forward(TokenBatch(torch.tensor([ids])))
    ((log_probs, log_weights),) = model.iter_components(hidden[0, -1:])
    weights = log_weights[0].exp()
    tokens = TokenBatch(torch.tensor([ids]))
    by_hand = sum(
        weight * expert.logits(expert.forward(tokens)[0])[0, -1].softmax(-1)
        for weight, expert in zip(weights, model.experts, strict=False)
    )
    for order, weight in enumerate(weights[2:], start=1):
        shares = cached_by_hand(ids, 8, order)
        by_hand = by_hand + weight * torch.tensor([shares.get(id, 0.0) for id in range(VOCAB)], dtype=torch.float64)
    assert float(weights.sum()) == pytest.approx(1)
    assert_close(model.logits(hidden)[0, -1].exp(), by_hand, rtol=1e-9, atol=1e-12)
    assert log_probs.shape == (1, VOCAB, 2 + ORDERS)


def test_a_component_without_a_distribution_has_no_weight() -> None:
    model: Any = mixed(8, clear=TINY_CLEAR)
    hidden, _ = model.forward(TokenBatch(torch.tensor([[5, 6]])))
    ((_, log_weights),) = model.iter_components(hidden[0, -1:])
    assert log_weights[0].exp()[2:].tolist() == [0.0, 0.0]  # nothing has followed 6


def test_past_its_context_an_expert_reads_in_strided_windows() -> None:
    model: Any = mixed(4, clear=replace(TINY_CLEAR, context=8))
    with torch.no_grad():
        model.gate.output.weight.zero_()
        model.gate.output.bias.copy_(torch.tensor([0.0, -1e4, -1e4, -1e4]))  # the Transformer alone
    ids = torch.randint(VOCAB, (41,), generator=torch.Generator().manual_seed(1))
    dataset = SimpleNamespace(ids=ids.numpy(), starts=np.array([0, 41]), byte_lengths=None)
    parts = iter_token_nll(model.experts[0], dataset, windows="strided")
    alone = np.concatenate([part.nats for part in sorted(parts, key=lambda part: part.start)])
    nats, _ = model.token_nll(TokenBatch(ids[None, :-1]), ids[None, 1:])
    assert_close(nats[0], torch.from_numpy(alone), rtol=1e-9, atol=1e-9)


def test_the_gate_learns_which_component_to_trust() -> None:
    # One feature says which of two components knows the token; the other one is at chance.
    random = torch.Generator().manual_seed(0)
    feature = torch.randint(2, (4000, 1), generator=random).float()
    log_probs = torch.where(torch.cat([feature, 1 - feature], 1) > 0, math.log(0.9), math.log(0.1))
    gate = Gate(1, 2)
    possible = torch.ones_like(log_probs, dtype=torch.bool)
    maximise_likelihood(gate, feature, log_probs, possible)
    loss = -torch.logsumexp(gate(feature, possible) + log_probs, -1).mean().detach()
    assert float(loss) == pytest.approx(-math.log(0.9), abs=0.02)  # one weight for all tokens would give ln 2
    first = [each.clone() for each in gate.parameters()]
    maximise_likelihood(gate, feature, log_probs, possible)
    assert all(torch.equal(a, b) for a, b in zip(first, gate.parameters(), strict=True))


def documents(count: int, length: int = 60) -> Any:
    random = np.random.default_rng(5)
    ids = np.concatenate([np.arange(length) % (3 + at % 5) + random.integers(0, 3, length) for at in range(count)])
    return SimpleNamespace(ids=ids, starts=np.arange(count + 1) * length, byte_lengths=None)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_what_the_gate_is_fitted_on_is_read_by_no_expert(count: int) -> None:
    dataset = documents(count, 600)
    dataset.ids = np.arange(len(dataset.ids))  # every token its own
    read, held_out = split_held_out(dataset, seed=1)
    assert not set(read.ids.tolist()) & set(held_out.ids.tolist())
    assert len(read) + len(held_out) == len(dataset.ids)
    assert 0.04 < len(held_out) / len(dataset.ids) < 0.09
    for part in (read, held_out):
        assert [part.starts[0], part.starts[-1]] == [0, len(part)]
        assert (np.diff(part.starts) > 0).all()


def trainer(dataset: Any, steps: int = 4) -> MixtureTrainer:
    model: Any = mixed(16, clear=replace(TINY_CLEAR, context=8), ngram=replace(TINY_NGRAM, sizes=()))
    settings = TrainingSettings(batch_size=2, warmup_steps=1, precision="fp32")
    return MixtureTrainer(model.float(), Causal(2), dataset, [settings, settings], steps=steps)


def counted_tokens(model: Any) -> int:
    return int(model.experts[1].table(1).counts.sum())


def test_n_grams_count_the_held_out_text_after_the_gate_is_fitted() -> None:
    dataset = documents(40)
    training = trainer(dataset)
    training.train_step()
    with training.averaged_weights():
        assert counted_tokens(training.model) == len(training.read)
    for _ in training:
        pass
    with training.averaged_weights():
        assert counted_tokens(training.model) == len(dataset.ids)


def test_counting_the_held_out_text_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_fitting, "HELD_OUT_SHARE", 0.7)
    whole = documents(50)
    dataset = SimpleNamespace(ids=whole.ids[:1800], starts=whole.starts[:31], byte_lengths=None)
    training = trainer(dataset, steps=1)
    training.train_step()
    ids = torch.from_numpy(whole.ids[1800:].reshape(20, 60))

    def loss() -> float:
        with torch.no_grad():
            return float(training.mixture.token_nll(TokenBatch(ids[:, :-1]), ids[:, 1:])[0].mean())

    with training.averaged_weights():
        after = loss()
        training.count("read")
        assert after < loss()


TINY: dict[str, Any] = {"name": "mix", "cache": 32}


def run(file: Path, out: Path, **more: Any) -> Any:
    """The result of a run of eight steps."""
    usual = {"text": (str(file),), "out": out, "steps": 8, "tokenizer": "characters", "parameters": 14_000}
    *_, result = train_events(build_train_recipe({**usual, "model": TINY, "training": TRAINING}, more))
    return result


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    run(file, tmp_path / "whole")
    run(file, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "step-000008")  # killed while it was saved
    run(file, tmp_path / "half", resume=True)
    first, second = (open_model(tmp_path / name).model.state_dict() for name in ("whole", "half"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    whole, half = (metrics_without_times(tmp_path / name) for name in ("whole", "half"))
    assert [row for row in whole if row["kind"] == "evaluation"] == [row for row in half if row["kind"] == "evaluation"]


def test_a_trained_mixture_opens_generates_and_is_inspected(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    run(file, tmp_path / "run")
    opened = open_model(tmp_path / "run")
    assert evaluate(opened, str(file), limit=500).bits_per_byte > 0
    assert len(generate(opened, "the cat", max_tokens=40, seed=1).text) > 7
    view = experts(opened.model, opened.tokenizer, "the cat sat on a mat")  # type: ignore[arg-type]
    weights, probs = view.panels
    assert isinstance(weights, Table)
    assert isinstance(probs, Table)
    for shown, alone in zip(weights.rows, probs.rows, strict=True):
        values: list[Any] = list(shown[3:])
        assert sum(values) == pytest.approx(1)
        given: list[Any] = list(alone[1:])
        assert shown[1] == pytest.approx(sum(w * p for w, p in zip(values, given, strict=True)))
    for name, to in (("a.gguf", None), ("a.arpa", None), ("a", "onnx")):
        with pytest.raises(ClearstoryError) as refused:
            convert(tmp_path / "run", tmp_path / name, to)  # type: ignore[arg-type]  # what is typed
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"experts": ["clear"]}, "each expert has one config"),
        ({"vocab": 24}, "all experts share one tokenizer"),
        ({"configs": [{"family": "Mixture", "model": {"vocab": VOCAB}}] * 2}, "not a mixture"),
        ({"configs": ["x", "y"]}, "not a mixture"),
        ({"configs": [{"family": "Transformer", "model": {"layers": 2**60}}] * 2}, "layers"),
        ({"cache": 2**40}, "model.cache"),
    ],
)
def test_a_false_config_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    folder = save_model(tmp_path / "m", mixed(8, clear=TINY_CLEAR, ngram=TINY_NGRAM), None, ModelCard(name="m"))
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= changed
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "checksums.json").unlink()
    with pytest.raises((BadInput, BadSetting), match=said):
        open_model(folder)


def test_experts_are_presets_that_predict_the_next_token() -> None:
    config = ModelChoice(name="mix", overrides={"experts": ("lstm+ngram",)}).config(vocab=50, parameters=20_000)
    assert [each.family for each in config.configs] == ["lstm", "ngram"]
    assert starting_after(config, 3).configs[1].bos_token_id == 3
    wrong = {"bert-tiny,ngram": "encoder", "hmm,ngram": "fitted by EM", "mix,ngram": "mixture", "ngram,ngram": "twice"}
    for names, said in wrong.items():
        with pytest.raises(BadSetting, match=said):
            ModelChoice(name="mix", overrides={"experts": (names,)}).config(vocab=50)
    with pytest.raises(BadSetting, match="two to"):
        MixtureConfig(vocab=5, experts=("ngram",), cache=0)


def test_a_mixture_is_not_fine_tuned(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    run(file, tmp_path / "run", model={"experts": "ngram"})
    again = build_train_recipe({"text": (str(file),), "init": str(tmp_path / "run"), "out": tmp_path / "b", "steps": 1})
    with pytest.raises(CannotDo, match="mixture"):
        all_events(again)


def test_two_networks_are_mixed(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    result = run(file, tmp_path / "run", model={"experts": "clear,gru", "cache": 0})
    assert open_model(tmp_path / "run").model.component_names == ["clear", "gru"]
    assert result.steps == 8


def test_a_mixture_of_tables_alone_is_counted_in_one_step() -> None:
    model: Any = mixed(16, ngram=TINY_NGRAM)
    training = MixtureTrainer(model, Causal(2), documents(40), [TrainingSettings()], steps=9)
    assert [each.step for each in training] == [1]
