"""Hidden Markov models: textbook numbers, enumeration of all paths, log space, and hmmlearn."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice, pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import clearstory
from clearstory.errors import BadSetting, VocabularyMismatch
from clearstory.formats.folders import open_model
from clearstory.models.base import CountModel, TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.families import scale_config
from clearstory.models.hmm import baum_welch
from clearstory.models.hmm.baum_welch import DirichletPrior, expected_counts, maximize
from clearstory.models.hmm.chain import HMMProbabilities
from clearstory.models.hmm.config import HMMConfig, parameter_count
from clearstory.models.hmm.decoding import posteriors, viterbi
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.loop import train_events
from clearstory.training.optimizers import AdamW
from tiny import MODELS, TINY_HMM, VOCAB, shaken
from trained import metrics_without_times, text_file

IDS = torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(7))
TEXT = torch.randint(VOCAB, (300,), generator=torch.Generator().manual_seed(8)) % 7 * 3  # 7 words of the 23

# Two states, healthy and feverish; three words, normal, cold and dizzy.
DOCTOR = HMMProbabilities(
    torch.tensor([0.6, 0.4]).double(),
    torch.tensor([[0.7, 0.3], [0.4, 0.6]]).double(),
    torch.tensor([[0.5, 0.1], [0.4, 0.3], [0.1, 0.6]]).double(),
)


def doctor() -> Any:
    model = build(HMMConfig(vocab=3, states=2)).double()
    model.load_state_dict({name: table.log() for name, table in DOCTOR._asdict().items()})
    return model.requires_grad_(False)


def logs(chain: HMMProbabilities, ids: torch.Tensor) -> Any:
    """The log-probabilities that `viterbi` takes."""
    return chain.initial.log()[None], chain.transition.log()[None], chain.emission.log()[ids]


def rows(ids: Any) -> Any:
    return SimpleNamespace(ids=np.asarray(ids), starts=np.array([0, len(ids)]), byte_lengths=np.ones(VOCAB))


def test_the_forward_algorithm_by_hand() -> None:
    # normal: 0.6 · 0.5 = 0.3 and 0.4 · 0.1 = 0.04, together 0.34
    # cold: (0.3 · 0.7 + 0.04 · 0.4) · 0.4 = 0.0904 and (0.3 · 0.3 + 0.04 · 0.6) · 0.3 = 0.0342, together 0.1246
    # dizzy: (0.0904 · 0.7 + 0.0342 · 0.4) · 0.1 = 0.007696 and (0.0904 · 0.3 + 0.0342 · 0.6) · 0.6 = 0.028584
    nats, _ = doctor().token_nll(TokenBatch(torch.tensor([[0, 1]])), torch.tensor([[1, 2]]))
    assert_close(nats.exp(), torch.tensor([[0.34 / 0.1246, 0.1246 / 0.03628]]).double())
    found = expected_counts(DOCTOR, [torch.tensor([[0, 1, 2]])])
    assert found.nats == pytest.approx(-math.log(0.03628))


def test_viterbi_by_hand() -> None:
    # healthy 0.3, feverish 0.04; then healthy 0.3 · 0.7 · 0.4 = 0.084, feverish 0.3 · 0.3 · 0.3 = 0.027;
    # then healthy 0.084 · 0.7 · 0.1 = 0.00588, feverish 0.084 · 0.3 · 0.6 = 0.01512
    path, total = viterbi(*logs(DOCTOR, torch.tensor([[0, 1, 2]])))
    assert path.tolist() == [[0, 0, 1]]
    assert_close(total.exp(), torch.tensor([0.01512]).double())


@pytest.mark.parametrize("blocks", [1, 3])
def test_enumeration_of_all_paths(blocks: int) -> None:
    config = HMMConfig(vocab=7, states=3, blocks=blocks, learn="gradient")
    model: Any = shaken(config).requires_grad_(False)
    chain, ids = model.probabilities(), [2, 0, 6, 3, 3]
    every = {}
    for path in product(range(3), repeat=5):
        p = float(chain.initial[path[0]])
        for t, state in enumerate(path):
            p *= float(chain.transition[path[t - 1], state]) if t else 1.0
            p *= speaks(chain, ids[t], state)
        every[path] = p
    total = sum(every.values())
    nats, _ = model.token_nll(TokenBatch(torch.tensor([ids[:-1]])), torch.tensor([ids[1:]]))
    first = sum(float(chain.initial[k]) * speaks(chain, 2, k) for k in range(3))
    assert float(nats.sum()) == pytest.approx(-math.log(total / first))
    found = posteriors(chain, torch.tensor([ids]))[0]
    for t in range(5):
        for state in range(3):
            share = sum(p for path, p in every.items() if path[t] == state) / total
            assert float(found[t, state]) == pytest.approx(share, abs=1e-12)
    if blocks == 1:
        path, best = viterbi(*logs(chain, torch.tensor([ids])))
        assert tuple(path[0].tolist()) == max(every, key=lambda path: every[path])
        assert float(best.exp()) == pytest.approx(max(every.values()))


def speaks(chain: HMMProbabilities, word: int, state: int) -> float:
    block, place = divmod(state, chain.emission.shape[1])
    return float(chain.emission[word, place]) if word % chain.blocks == block else 0.0


def test_second_order_viterbi_by_enumeration() -> None:
    generator = torch.Generator().manual_seed(3)
    first, ways, spoken = (torch.randn(shape, generator=generator).double() for shape in [(3, 3), (3, 3, 3), (2, 6, 3)])
    paths, totals = viterbi(first, ways, spoken)
    for row in range(2):
        every = {}
        for before, *path in product(range(3), repeat=7):
            p, last = first[before, path[0]] + spoken[row, 0, path[0]], before
            for t in range(1, 6):
                p = p + ways[last, path[t - 1], path[t]] + spoken[row, t, path[t]]
                last = path[t - 1]
            every[(before, *path)] = float(p)
        best = max(every, key=lambda path: every[path])
        assert tuple(paths[row].tolist()) == best[1:]
        assert float(totals[row]) == pytest.approx(every[best])


def test_trigram_probabilities_by_enumeration() -> None:
    model: Any = MODELS["tagger"]().requires_grad_(False)
    first, ways = model.initial.softmax(0), model.transition.softmax(2)
    words, ids = model.emission.softmax(0), [4, 0, 9, 4]
    totals = []
    for length in (3, 4):
        p = 0.0
        for before, *path in product(range(5), repeat=length + 1):
            one = float(first[before] * first[path[0]] * words[ids[0], path[0]])
            for t in range(1, length):
                last = path[t - 2] if t > 1 else before
                one *= float(ways[last, path[t - 1], path[t]] * words[ids[t], path[t]])
            p += one
        totals.append(p)
    logs = model.logits(model.forward(TokenBatch(torch.tensor([ids[:3]])))[0])
    assert float(logs[0, 2, ids[3]].exp()) == pytest.approx(totals[1] / totals[0])


def test_scaled_products_equal_log_space() -> None:
    model: Any = shaken(TINY_HMM).requires_grad_(False)
    chain = model.probabilities()
    log = chain.initial.log()
    for t, word in enumerate(TEXT):
        log = log if not t else torch.logsumexp(log[:, None] + chain.transition.log(), 0)
        log = log + chain.emission[word].log()
    assert expected_counts(chain, [TEXT[None]]).nats == pytest.approx(-float(log.logsumexp(0)), rel=1e-12)
    single = expected_counts(HMMProbabilities(*(each.float() for each in chain)), [TEXT[None]])
    assert single.nats == pytest.approx(-float(log.logsumexp(0)), rel=1e-5)


def hmmlearns(chain: HMMProbabilities, prior: DirichletPrior) -> Any:
    """hmmlearn's model with the same numbers; its prior is a Dirichlet parameter, one more than a pseudo-count."""
    from hmmlearn.hmm import CategoricalHMM

    other = CategoricalHMM(
        n_components=len(chain.initial), n_iter=1, init_params="", implementation="log",
        startprob_prior=prior.initial.numpy() + 1, transmat_prior=prior.transition.numpy() + 1,
        emissionprob_prior=prior.emission.t().numpy() + 1, n_features=len(chain.emission),
    )  # fmt: skip
    other.startprob_, other.transmat_ = chain.initial.numpy(), chain.transition.numpy()
    other.emissionprob_ = chain.emission.t().numpy()
    return other


def test_parity_with_hmmlearn() -> None:
    model: Any = shaken(TINY_HMM).requires_grad_(False)
    prior = DirichletPrior.of(torch.bincount(TEXT, minlength=VOCAB).double(), TINY_HMM)
    other, ids = hmmlearns(model.probabilities(), prior), TEXT.view(-1, 1).numpy()
    lengths = [100, 100, 100]
    assert -expected_counts(model.probabilities(), [TEXT.view(3, 100)]).nats == pytest.approx(
        other.score(ids, lengths), rel=1e-9
    )
    assert_close(
        posteriors(model.probabilities(), TEXT.view(3, 100)).flatten(0, 1).numpy(),
        other.predict_proba(ids, lengths),
        atol=1e-9,
        rtol=1e-9,
    )
    total, path = other.decode(ids, lengths, algorithm="viterbi")
    ours, totals = viterbi(*logs(model.probabilities(), TEXT.view(3, 100)))
    assert ours.flatten().tolist() == path.tolist()
    assert float(totals.sum()) == pytest.approx(total, rel=1e-9)
    other.fit(ids, lengths)
    maximize(model, expected_counts(model.probabilities(), [TEXT.view(3, 100)]), prior)
    for ours, theirs in zip(
        model.probabilities(), (other.startprob_, other.transmat_, other.emissionprob_.T), strict=True
    ):
        assert_close(ours.numpy(), theirs, rtol=1e-6, atol=1e-9)


def test_penalised_likelihood_never_decreases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baum_welch, "WINDOW", 40)  # seven windows, and a shorter one
    monkeypatch.setattr(baum_welch, "MAX_POSTERIORS", 12 * 40 * 3)  # three in a batch
    model: Any = shaken(TINY_HMM)
    assert isinstance(model, CountModel)
    prior = DirichletPrior.of(torch.bincount(TEXT, minlength=VOCAB).double(), TINY_HMM)
    reached = []
    for fitted in islice(model.fit(rows(TEXT)), 25):
        assert fitted.tokens == 300
        chain = model.probabilities()
        found = expected_counts(chain, baum_welch.iter_windows(TEXT.numpy(), 12, torch.device("cpu")))
        reached.append(prior.penalty(chain) - found.nats)
    assert all(later >= sooner - 1e-9 for sooner, later in pairwise(reached))
    assert reached[-1] > reached[0] + 10


def test_windows_cover_the_text_once() -> None:
    ids = np.arange(2 * baum_welch.WINDOW + 5)
    parts = list(baum_welch.iter_windows(ids, 2**12, torch.device("cpu")))
    assert [tuple(part.shape) for part in parts] == [(2, baum_welch.WINDOW), (1, 5)]
    assert torch.cat([part.flatten() for part in parts]).tolist() == ids.tolist()


def test_resumed_rounds_equal_uninterrupted_ones_bit_for_bit() -> None:
    alone, stopped = (build(TINY_HMM, seed=1) for _ in range(2))
    list(islice(alone.fit(rows(TEXT)), 5))
    list(islice(stopped.fit(rows(TEXT)), 2))
    again = build(TINY_HMM, seed=2)
    again.load_state_dict(stopped.state_dict())
    list(islice(again.fit(rows(TEXT), 2), 3))
    assert all(torch.equal(one, other) for one, other in zip(alone.parameters(), again.parameters(), strict=True))


def train(folder: Path, name: str, **more: Any) -> Any:
    """A small run as a user starts it: its model and its metrics."""
    settings = {
        "text": (str(text_file(folder)),), "out": folder / name, "steps": 6, "tokenizer": "characters", "model": "hmm",
        "model.states": 8, "training.context": 16, "training.batch_size": 4, "training.eval_tokens": 64,
        "training.device": "cpu", "training.threads": 1, "data.cache": str(folder / "cache"),
    }  # fmt: skip
    list(train_events(build_train_recipe({**settings, **more})))
    return open_model(folder / name).model, metrics_without_times(folder / name)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    alone, told = train(tmp_path, "alone")
    train(tmp_path, "stopped", steps=3)
    again, retold = train(tmp_path, "stopped", resume=True)
    assert all(torch.equal(one, other) for one, other in zip(alone.parameters(), again.parameters(), strict=True))
    kept = [[row for row in rows if row["kind"] == "step"] for rows in (told, retold)]
    assert kept[0] == kept[1]
    losses = [row["loss"] for row in kept[0]]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("blocks", [1, 2])
def test_gradients_go_through_the_trainer(tmp_path: Path, blocks: int) -> None:
    _, told = train(tmp_path, "run", **{"model.learn": "gradient", "model.blocks": blocks, "steps": 25})
    losses = [row["loss"] for row in told if row["kind"] == "step"]
    assert losses[-1] < 0.75 * losses[0]
    looks = [row["nats_per_token"] for row in told if row["kind"] == "evaluation"]
    assert len(set(looks)) == len(looks)  # each evaluation uses the parameters of its step


def test_probabilities_follow_the_fused_kernels_of_an_optimizer() -> None:
    model = build(replace(TINY_HMM, learn="gradient"), seed=1)
    optimizer = AdamW([{"params": list(model.parameters()), "weight_decay": 0.0}], 0.1, (0.9, 0.99), 1e-8)
    seen = []
    for _ in range(3):
        with torch.no_grad():
            seen.append(model.token_nll(TokenBatch(IDS), IDS)[0].sum())
        model.token_nll(TokenBatch(IDS), IDS)[0].sum().backward()
        optimizer.step()
    assert seen[0] > seen[1] > seen[2]


def test_an_unseen_token_has_positive_probability() -> None:
    model = build(TINY_HMM, seed=1)
    list(islice(model.fit(rows(TEXT)), 10))
    nats, _ = model.token_nll(TokenBatch(torch.tensor([[0, 1, 1]])), torch.tensor([[1, 1, 1]]))  # 1 is no multiple of 3
    assert (nats < 30).all()


def test_the_gradient_equals_expected_counts_minus_their_expectation() -> None:
    # Salakhutdinov et al. 2003: d log p / d logit = expected count - probability · expected total of its distribution.
    model: Any = shaken(TINY_HMM)
    ids = TEXT[None, :50]
    found = expected_counts(HMMProbabilities(*(each.detach() for each in model.probabilities())), [ids])
    chain = model.probabilities()
    first = (chain.initial * chain.emission[ids[0, 0]]).sum().log()
    nats, _ = model.token_nll(TokenBatch(ids[:, :-1]), ids[:, 1:])
    (first - nats.sum()).backward()
    for weight, counts, dim in ((model.initial, found.initial, 0), (model.transition, found.transition, 1),
                                (model.emission, found.emission, 0)):  # fmt: skip
        assert_close(weight.grad, counts - weight.detach().softmax(dim) * counts.sum(dim, keepdim=True))


def test_blocks_equal_a_dense_model_with_zero_emissions_elsewhere() -> None:
    config = replace(TINY_HMM, learn="gradient", blocks=4)
    model: Any = shaken(config)
    whole: Any = shaken(replace(config, blocks=1))
    dense = torch.full((VOCAB, 12), -torch.inf).double()
    for word in range(VOCAB):
        block = word % 4
        dense[word, 3 * block : 3 * block + 3] = model.emission.detach()[word]
    whole.load_state_dict({**model.state_dict(), "emission": dense})
    tokens, targets = TokenBatch(IDS), IDS.roll(-1, 1)
    assert_close(model.forward(tokens)[0], whole.forward(tokens)[0])
    for others in (targets, targets.flip(0)):  # targets need not be the next tokens
        model.zero_grad()
        whole.zero_grad()
        one, other = model.token_nll(tokens, others)[0], whole.token_nll(tokens, others)[0]
        assert_close(one, other)
        one.sum().backward()
        other.sum().backward()
        assert_close(model.transition.grad, whole.transition.grad)
        assert_close(model.emission.grad[0], whole.emission.grad[0, :3])


def test_probabilities_are_cached_until_a_parameter_changes() -> None:
    model: Any = shaken(TINY_HMM).requires_grad_(False)
    before = model.probabilities()
    assert model.probabilities().transition is before.transition
    model.transition.mul_(2)
    assert not torch.equal(model.probabilities().transition, before.transition)
    assert_close(model.double().probabilities().transition, model.transition.softmax(1))


@pytest.mark.parametrize("config", [TINY_HMM, replace(TINY_HMM, learn="gradient", blocks=3)])
def test_parameter_count_equals_the_built_models(config: HMMConfig) -> None:
    assert count_parameters(build(config)) == parameter_count(config)


@pytest.mark.parametrize("blocks", [1, 8])
@pytest.mark.parametrize("target", [20_000, 1_000_000, 20_000_000])
def test_scaling_reaches_the_target_size(target: int, blocks: int) -> None:
    config = HMMConfig(vocab=500, states=256, blocks=blocks, learn="gradient")
    assert parameter_count(scale_config(config, target)) == pytest.approx(target, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"states": 0}, "model.states is 0; it must lie between 1 and 16,384"),
        ({"blocks": 5, "learn": "gradient"}, "model.states is 12 and model.blocks 5; blocks must divide"),
        ({"blocks": 4}, "blocks need gradient descent"),
        ({"order": 3}, "trigrams need tags"),
        ({"order": 4}, "model.order is 4; it must be 2 for bigrams"),
        ({"tags": ("NOUN",)}, "they are determined from a tagged text"),
    ],
)
def test_invalid_configs_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        replace(TINY_HMM, **changes)


def test_an_unknown_id_is_refused() -> None:
    model: Any = shaken(TINY_HMM)
    with pytest.raises(VocabularyMismatch, match="token id 23 lies outside"):
        model.forward(TokenBatch(torch.tensor([[23]])))
    with pytest.raises(VocabularyMismatch, match="token id 23 lies outside"):
        model.token_nll(TokenBatch(torch.tensor([[2]])), torch.tensor([[23]]))


def test_the_start_token_that_a_text_lacks_leaves_the_initial_distribution() -> None:
    model: Any = shaken(replace(TINY_HMM, bos_token_id=4))
    with_start, without = TokenBatch.from_sequences([[4, 7, 4, 2], [7, 4, 2, 2]]), TokenBatch(torch.tensor([[7, 4, 2]]))
    after, state = model.forward(with_start, model.init_state(2))
    expected = model.forward(without, model.init_state())[0]
    torch.testing.assert_close(after[:1, 0], model.probabilities().initial[None])
    torch.testing.assert_close(after[:1, 1:], expected)  # a later one is an observation
    torch.testing.assert_close(after[1:, :3], expected)
    again = TokenBatch(torch.tensor([[4], [4]]))
    plain: Any = build(TINY_HMM).double()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.forward(again, state)[0], plain.forward(again, state)[0])


def test_rounds_end_when_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "abc.txt").write_text("abc" * 30)
    model = {"name": "hmm", "states": 3}
    result = clearstory.train(tmp_path / "abc.txt", model=model, tokenizer="characters", out=tmp_path / "run")
    assert result.steps < 100
    assert result.nats_per_token == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("seed", "vocab"), [(0, 5), (1, 5), (2, 257)])
def test_a_short_text_of_few_letters_is_learned_by_default(seed: int, vocab: int) -> None:
    # Three states, one for each letter: hmmlearn 0.3.3 reaches 0.00 nats in 9 of 10 seeds.
    config = HMMConfig(vocab=vocab, states=3)
    text = SimpleNamespace(ids=np.array([2, 3, 4] * 30), starts=np.array([0, 90]), byte_lengths=None)
    model: Any = build(config, seed=seed)
    assert [fitted.nats for fitted in islice(model.fit(text), 30)][-1] == pytest.approx(0, abs=0.005)
    strong: Any = build(replace(config, transition_prior=1.0, emission_prior=100.0), seed=seed)
    assert [fitted.nats for fitted in islice(strong.fit(text), 10)][-1] > 0.7


def test_pseudo_counts_are_settings_and_those_of_many_different_tokens_are_the_default() -> None:
    for types, transition, emission in ((8192, 1, 100), (700, 1, 100), (70, 0.01, 1)):
        counts = torch.arange(10_000) < types  # each of the first tokens once
        prior = DirichletPrior.of(counts.double(), HMMConfig(vocab=10_000, states=2))
        assert prior.transition.unique().tolist() == pytest.approx([transition])
        assert prior.emission.sum(0).tolist() == pytest.approx([emission, emission])
    chosen = HMMConfig(vocab=2, states=2, transition_prior=0.5, emission_prior=2)
    prior = DirichletPrior.of(torch.tensor([3.0, 1.0]), chosen)
    assert prior.transition.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert prior.emission.sum(0).tolist() == pytest.approx([2, 2])
    for wrong in ({"transition_prior": 0.0}, {"emission_prior": -1.0}, {"emission_prior": 1.0, "learn": "gradient"}):
        with pytest.raises(BadSetting, match="pseudo-count"):
            HMMConfig(vocab=70, states=2, **wrong)  # type: ignore[arg-type]
