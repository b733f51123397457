"""Sampling: what the cuts keep, in which order, and the random draw."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, Diverged
from clearstory.generation.sampling import (
    NextTokenScores,
    apply_generated_penalties,
    apply_repetition_penalty,
    filtered_probabilities,
    rows_to_sample,
    sample_rows,
    sample_tokens,
)
from clearstory.generation.settings import Sampling

# Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625, out of order.
LOGITS = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625], dtype=torch.float64).log()


def survivors(**settings: Any) -> dict[int, float]:
    ids, probabilities = filtered_probabilities(LOGITS, Sampling(**settings))
    assert ids is not None
    return {int(id): round(float(p), 6) for id, p in zip(ids, probabilities, strict=True)}


def test_top_k_keeps_the_k_likeliest() -> None:
    # 0.5 / 0.75 and 0.25 / 0.75
    assert survivors(top_k=2) == {1: 0.666667, 3: 0.333333}


def test_top_p_keeps_the_fewest_that_have_the_probability() -> None:
    # 0.5 + 0.25 = 0.75 reaches 0.7 and also 0.75; for 0.76 the third is needed.
    assert list(survivors(top_p=0.7)) == [1, 3]
    assert list(survivors(top_p=0.75)) == [1, 3]
    assert list(survivors(top_p=0.76)) == [1, 3, 0]
    assert list(survivors(top_p=1e-9)) == [1]


def test_min_p_drops_what_is_a_small_share_of_the_likeliest() -> None:
    # 0.125 = a quarter of 0.5 stays at a share of 0.25; 0.0625 goes.
    assert list(survivors(min_p=0.25)) == [1, 3, 0]
    assert list(survivors(min_p=1.0)) == [1]


def test_each_cut_sees_the_result_of_the_one_before() -> None:
    # After top-k 3 the probabilities are 4/7, 2/7, 1/7; 4/7 = 0.571 does not reach 0.58, so top-p keeps two.
    assert list(survivors(top_k=3, top_p=0.58)) == [1, 3]
    # Without top-k, 0.5 alone does not reach 0.51 either; with it, 4/7 does.
    assert list(survivors(top_k=3, top_p=0.51)) == [1]


def test_without_cuts_all_tokens_remain() -> None:
    ids, probabilities = filtered_probabilities(LOGITS, Sampling())
    assert ids is None
    assert probabilities.tolist() == pytest.approx(LOGITS.exp().tolist())


def test_the_penalty_makes_seen_tokens_less_likely_on_both_sides_of_zero() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert apply_repetition_penalty(logits, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert apply_repetition_penalty(logits, [], 2.0) is logits
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_temperature_comes_before_top_p() -> None:
    # At temperature 0.5 probabilities are squared: 0.25 / 0.34375 = 0.727 alone reaches 0.7.
    ids = [
        int(sample_tokens(LOGITS[None], [Sampling(temperature=0.5, top_p=0.7)], [generator(s)], [[]])[0])
        for s in range(50)
    ]
    assert set(ids) == {1}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_samples_follow_the_probabilities() -> None:
    random = generator(3)
    counts = Counter(int(sample_tokens(LOGITS[None], [Sampling()], [random], [[]])[0]) for _ in range(4000))
    for id, p in enumerate(LOGITS.exp().tolist()):
        # Four standard deviations of a count: 4 √(4000 p (1 - p)).
        assert abs(counts[id] - 4000 * p) < 4 * (4000 * p * (1 - p)) ** 0.5


def test_a_row_does_not_depend_on_the_others() -> None:
    settings = Sampling(top_p=0.9)
    alone = [int(sample_tokens(LOGITS[None], [settings], [generator(seed)], [[]])[0]) for seed in range(8)]
    rows = LOGITS.expand(8, -1)
    together, _ = sample_tokens(rows, [settings] * 8, [generator(seed) for seed in range(8)], [[]] * 8)
    assert together.tolist() == alone
    assert len(set(alone)) > 1


def test_logprobs_are_those_before_any_cut() -> None:
    rows = LOGITS.expand(2, -1)
    settings = [Sampling(temperature=0), Sampling(temperature=0.1, top_k=1, repetition_penalty=1.1)]
    ids, logprobs = sample_tokens(rows, settings, [None, generator(1)], [[], [1]])
    assert ids.tolist() == [1, 1]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.5])


def test_a_tiny_temperature_does_not_overflow() -> None:
    ids, _ = sample_tokens(torch.tensor([[5.0, 5.1, -3.0]]), [Sampling(temperature=1e-30)], [generator(1)], [[]])
    assert ids.tolist() == [1]


def test_impossible_tokens_are_never_sampled() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    seen = {int(sample_tokens(logits, [Sampling()], [generator(seed)], [[]])[0]) for seed in range(50)}
    assert seen == {1, 3}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(Diverged):
        sample_tokens(torch.tensor([[0.0, bad]]), [Sampling()], [generator(1)], [[]])


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"beam": 0},
    ],
)
def test_invalid_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Sampling(**bad)


@pytest.mark.parametrize(
    "settings",
    [Sampling(), Sampling(temperature=0.5, top_k=7), Sampling(top_p=0.8, min_p=0.02), Sampling(repetition_penalty=1.3)],
)
def test_rows_sampled_together_equal_rows_sampled_alone(settings: Sampling) -> None:
    logits = 3 * torch.randn(16, 40, generator=generator(1), dtype=torch.float64)
    penalized = [[row, row + 3] for row in range(16)]
    together = sample_rows(logits, settings, [generator(seed) for seed in range(16)], penalized)
    alone = [sample_rows(logits[[row]], settings, [generator(row)], [penalized[row]]) for row in range(16)]
    assert together.tolist() == torch.cat(alone).tolist()
    assert len(set(together.tolist())) > 4


def test_on_a_gpu_rows_that_differ_in_seed_and_length_are_sampled_together() -> None:
    settings = [Sampling(seed=1), Sampling(top_k=3), Sampling(seed=2, max_tokens=7, stop=("\n",)), Sampling(top_k=3)]
    groups = [rows for _, rows in rows_to_sample(settings, torch.device("cuda"))]
    assert groups == [[0, 2], [1, 3]]
    assert [rows for _, rows in rows_to_sample(settings, torch.device("cpu"))] == [[0], [1], [2], [3]]


def test_penalties_follow_the_formula_of_the_interface() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 0.5]])
    sampling = Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.75)
    # Token 2 was generated twice: 3 - 2 · 0.75 - 0.5 = 1; token 1 once: 2 - 0.75 - 0.5 = 0.75.
    lowered = apply_generated_penalties(logits[0], [2, 1, 2], sampling)
    assert lowered.tolist() == [1.0, 0.75, 1.0, 0.5]
    ids, logprobs = sample_tokens(logits, [sampling], [None], [[]], generated=[[2, 2, 2]])
    assert ids.tolist() == [1]  # 3 - 3 · 0.75 - 0.5 = 0.25
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())  # the model's own
    encouraged = Sampling(temperature=0, presence_penalty=-2)
    assert sample_tokens(logits, [encouraged], [None], [[]], generated=[[1]])[0].tolist() == [1]  # 2 + 2 > 3
    biased = Sampling(temperature=0, logit_bias=((3, 2.75), (2, -100.0)))
    assert sample_tokens(logits, [biased], [None], [[]])[0].tolist() == [3]  # 0.5 + 2.75 > 2


def test_rows_with_penalties_do_not_change_others() -> None:
    logits = torch.randn(3, 30, generator=generator(1))
    settings = [
        Sampling(seed=1),
        Sampling(seed=2, frequency_penalty=1.5, logit_bias=((4, 3.0),)),
        Sampling(seed=3, temperature=0, presence_penalty=1),
    ]
    generated = [[], [1, 1, 2], [int(logits[2].argmax())]]

    def sample(rows: list[int]) -> list[int]:
        own = [generator(row) for row in rows]
        chosen = [settings[row] for row in rows]
        return sample_tokens(logits[rows], chosen, own, [[]] * len(rows), generated=[generated[row] for row in rows])[
            0
        ].tolist()

    assert sample([0, 1, 2]) == [*sample([0]), *sample([1]), *sample([2])]
    assert sample([2]) != [int(logits[2].argmax())]


def test_the_likeliest_tokens_have_the_log_probabilities_of_chosen_ones() -> None:
    logits = torch.randn(4, 50, generator=generator(2))
    scores = NextTokenScores.of(logits)
    likeliest = scores.likeliest([3, 0, 1, 60])
    assert [len(row) for row in likeliest] == [3, 0, 1, 50]
    assert sum(math.exp(logprob) for _, logprob in likeliest[3]) == pytest.approx(1, abs=1e-5)
    for row, found in enumerate(likeliest):
        for id, logprob in found:
            ids = torch.full((4,), id)
            assert scores.logprobs(ids)[row].item() == logprob  # to the bit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5; it must be between -2 and 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan"),
        ({"logit_bias": ((3, 101.0),)}, "logit bias of token 3 is 101.0"),
        ({"beam": 2, "frequency_penalty": 1.0}, "beam is 2, and presence_penalty"),
    ],
)
def test_penalties_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Sampling(**settings)
