"""State posteriors: worked numbers, and sums that must be right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.hmm_states import forward_backward, posteriors
from clearstory.lens.views import Grid, Table
from clearstory.models.base import TokenBatch
from clearstory.models.hmm import decoding
from clearstory.models.hmm.chain import HMMProbabilities
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

TOKENIZER = train_tokenizer("characters", ["abcdefghijklmnopqrst "])

# Russell and Norvig, "Artificial Intelligence", section 15.2: rain continues with 0.7, and an umbrella is seen with
# 0.9 in rain and with 0.2 without.
UMBRELLAS = HMMProbabilities(
    torch.tensor([0.5, 0.5]).double(),
    torch.tensor([[0.7, 0.3], [0.3, 0.7]]).double(),
    torch.tensor([[0.9, 0.2], [0.1, 0.8]]).double(),
)


def test_two_days_of_umbrellas_by_hand() -> None:
    found = forward_backward(UMBRELLAS, torch.tensor([0, 0]))
    # 0.5 · 0.9 = 0.45 to 0.5 · 0.2 = 0.1; they add up to 0.55.
    assert found.forward[0].tolist() == pytest.approx([0.45 / 0.55, 0.1 / 0.55])
    # 0.7 · 0.818 + 0.3 · 0.182 = 0.627; 0.627 · 0.9 = 0.565 to 0.373 · 0.2 = 0.075; they add up to 0.639.
    assert found.forward[1, 0].item() == pytest.approx(0.883, abs=5e-4)
    second = (0.7 * 0.45 + 0.3 * 0.1) / 0.55 * 0.9 + (0.3 * 0.45 + 0.7 * 0.1) / 0.55 * 0.2
    # From rain it is seen again with 0.7 · 0.9 + 0.3 · 0.2 = 0.69, from no rain with 0.3 · 0.9 + 0.7 · 0.2 = 0.41.
    assert found.backward[0].tolist() == pytest.approx([0.69 / second, 0.41 / second])
    assert found.backward[1].tolist() == [1.0, 1.0]
    assert found.posterior[0, 0].item() == pytest.approx(0.883, abs=5e-4)
    assert found.nats == pytest.approx(-math.log(0.55 * second))
    # Rain on both days: 0.5 · 0.9 · 0.7 · 0.9.
    assert found.path.tolist() == [0, 0]
    assert found.path_nats == pytest.approx(-math.log(0.5 * 0.9 * 0.7 * 0.9))


def test_the_most_likely_path_of_five_days() -> None:
    assert forward_backward(UMBRELLAS, torch.tensor([0, 0, 1, 0, 0])).path.tolist() == [0, 0, 1, 0, 0]  # figure 15.5


@pytest.mark.parametrize("name", ["hmm", "blocks", "tagger"])
def test_sums_are_right(name: str) -> None:
    model: Any = MODELS[name]()
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    with torch.no_grad():
        chain = model.probabilities()
        found = forward_backward(chain, ids)
        ones = torch.ones(len(ids)).double()
        assert torch.allclose(found.forward.sum(1), ones)
        assert torch.allclose(found.posterior.sum(1), ones)
        assert torch.allclose(found.posterior, decoding.posteriors(chain, ids[None])[0])
        # The first token costs what the start says; the others are scored by the model.
        first = -model.logits(model.init_state(1).next)[0, ids[0]]
        rest, _ = model.token_nll(TokenBatch.from_sequences([ids[:-1].tolist()]), ids[None, 1:])
        assert found.nats == pytest.approx(float(first + rest.sum()), rel=1e-9)
        assert found.path_nats >= found.nats


def test_the_report_says_what_it_leaves_out() -> None:
    model = MODELS["hmm"]()
    view = posteriors(model, TOKENIZER, "abcab", top=3)
    assert [type(step) for step in view.panels] == [Grid, Grid, Grid, Table, Grid, Grid]
    assert isinstance(view.panels[0], Grid)
    assert view.panels[0].column_labels == ("a·0", "b·1", "c", "a·3", "b·4")
    assert len(view.panels[0].row_labels) == 3
    assert "The most likely 3 of 12 states are shown" in str(view.caption)
    assert "All 12 states" in str(posteriors(model, TOKENIZER, "a", top=12).caption)
    with pytest.raises(BadInput, match="the text is empty"):
        posteriors(model, TOKENIZER, "")
    with pytest.raises(BadSetting, match="top is 0"):
        posteriors(model, TOKENIZER, "a", top=0)
