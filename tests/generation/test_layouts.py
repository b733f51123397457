"""Views of a model for speed: the same answers to rounding, never saved, the model itself untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import CannotDo
from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import IGNORE, LanguageModel, Padded
from clearstory.models.families import build
from clearstory.models.int8 import NARROW, int8
from clearstory.models.layout import View, for_decoding
from tiny import TINY_CLEAR, TINY_GPT2, TINY_RECALL

IDS = torch.randint(23, (3, 9), generator=torch.Generator().manual_seed(5))
VIEWS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "one row": (lambda model: for_decoding(model, 1), 1e-5),
    "three rows": (lambda model: for_decoding(model, 3), 1e-5),
    # A weight is rounded to 1/127 of its row's largest, what it multiplies likewise; to 1/63 without VNNI. Heads of
    # four numbers let one place in a hundred be off by three times the rest, so the root mean square is bounded.
    "int8": (int8, 0.2 if NARROW else 0.1),
}


@pytest.fixture(
    params=[TINY_GPT2, TINY_CLEAR, replace(TINY_GPT2, tied=False), TINY_RECALL],
    ids=["gpt2", "clear", "untied", "recall"],
)
def model(request: pytest.FixtureRequest) -> Any:
    model, chance = build(request.param, seed=3).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=chance) * 0.2)
    return model


def off(name: str, found: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far a view's logits are from the model's: at most, or as a root mean square where they are rounded."""
    difference = found - wanted
    if name == "int8":
        return float(difference.square().mean().sqrt() / wanted.square().mean().sqrt())
    return float(difference.abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_answers_as_its_model(model: Any, name: str) -> None:
    make, tolerance = VIEWS[name]
    view = make(model)
    assert isinstance(view, View)
    assert isinstance(view, LanguageModel)
    with torch.no_grad():
        for rows in (1, 3):
            whole = model.predict(model.read(Padded(IDS[:rows]))[0])
            assert off(name, view.predict(view.read(Padded(IDS[:rows]))[0]), whole) <= tolerance
            state = view.begin(rows)
            steps = []
            for place in range(9):
                hidden, state = view.read(Padded(IDS[:rows, place : place + 1]), state)
                steps.append(view.predict(hidden))
            assert off(name, torch.cat(steps, 1), whole) <= tolerance
        targets = IDS.roll(-1, 1).clone()
        targets[0, 3] = IGNORE
        difference = view.score(Padded(IDS), targets)[0] - model.score(Padded(IDS), targets)[0]
        assert difference.abs().max() <= tolerance * 2 * model.predict(model.read(Padded(IDS))[0]).abs().max()
        assert difference[0, 3] == 0


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_never_saved_and_its_model_is_untouched(model: Any, name: str) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    view = VIEWS[name][0](model)
    with pytest.raises(CannotDo, match="save the model"):
        view.state_dict()
    list(generate(view, [1, 2], Sampling(max_tokens=5, seed=1)))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in view.parameters())


def test_where_nothing_is_gained_the_model_comes_back(model: Any) -> None:
    wide = model.double()
    assert for_decoding(wide) is wide
    thing = object()
    assert for_decoding(thing) is thing


def test_a_model_without_matrices_cannot_be_int8() -> None:
    with pytest.raises(CannotDo, match="no matrices"):
        int8(object())
