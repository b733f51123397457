"""Logit summary: probabilities and entropy at any temperature, within the stated bounds."""

from __future__ import annotations

import math

import pytest
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.logit_summary import MAX_BINS, distribution_at, summarise_logits

LOGITS = {
    "peaked": torch.cat([torch.tensor([12.0, 11.5]), torch.randn(3000, generator=torch.Generator().manual_seed(1))]),
    "flat": torch.randn(3000, generator=torch.Generator().manual_seed(2)) * 0.5,
    "wide": torch.randn(3000, generator=torch.Generator().manual_seed(3)) * 40,
    "equal": torch.zeros(500),
    "impossible": torch.cat([torch.linspace(-4, 3, 400), torch.full((50,), -torch.inf)]),
    "few": torch.tensor([1.0, 2.0]),
}


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("temperature", [0.05, 0.3, 0.7, 1.0, 2.0, 20.0])
def test_bounds_hold_at_every_temperature(name: str, temperature: float) -> None:
    logits = LOGITS[name].double()
    summary = summarise_logits(logits, top=120)
    assert len(summary.counts) <= MAX_BINS
    assert int(summary.counts.sum()) + len(summary.ids) + summary.impossible == len(logits)
    exact = (logits / temperature).softmax(-1)
    seen = distribution_at(summary, temperature)
    expected = exact[summary.ids]
    assert bool((expected <= seen.probabilities * (1 + 1e-9) + 1e-300).all())
    assert bool((seen.probabilities <= expected * (1 + seen.relative_error) * (1 + 1e-9) + 1e-300).all())
    bits = float(-torch.special.xlogy(exact, exact).sum()) / math.log(2)
    assert abs(seen.entropy - bits) <= seen.entropy_error + 1e-9
    if temperature >= 0.7 and name in ("peaked", "flat", "equal", "few"):
        assert seen.relative_error < 0.005
        assert seen.entropy_error < 0.06


def test_a_temperature_or_a_number_that_cannot_be_is_refused() -> None:
    summary = summarise_logits(LOGITS["few"])
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BadSetting, match="temperature is"):
            distribution_at(summary, wrong)
    with pytest.raises(BadSetting, match="top is 0"):
        summarise_logits(LOGITS["few"], top=0)
    for value in (math.nan, math.inf):
        with pytest.raises(BadInput, match=f"largest logit is {value}"):
            summarise_logits(torch.tensor([1.0, value]))
    with pytest.raises(BadInput, match="largest logit is -inf"):
        summarise_logits(torch.full((3,), -torch.inf))
