"""Which layers differ between two models: equal ones do not, and the changed layer is found."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tiny import TINY_GPT2, TINY_LSTM, shaken

from clearstory.errors import CannotDo, ClearstoryError
from clearstory.lens.probes.layer_similarity import linear_cka
from clearstory.models.heads import SequenceClassifier, TokenClassifier
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "a cat sat. a dog"
CHARACTERS = train_tokenizer("characters", [TEXT])


def opened(model: Any) -> Any:
    return SimpleNamespace(model=model, tokenizer=CHARACTERS)


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_LSTM])
def test_a_head_changes_no_layer_and_a_changed_layer_is_found(config: Any) -> None:
    base: Any = shaken(config)
    tuned: Any = TokenClassifier(deepcopy(base), ("O", "B-X")).double().eval()
    same: Any = inspect(opened(base), TEXT, "layer-similarity", compare_model=opened(tuned))
    curve, table = same.panels
    assert all(value == pytest.approx(1) for line in curve.lines for value in line.y)
    assert set(table.column("relative change")) == {0.0}
    assert "all weights that both models have are equal" in same.caption
    with torch.no_grad():
        last = (tuned.backbone.blocks if config is TINY_GPT2 else tuned.backbone.layers)[-1]
        for weight in last.parameters():
            weight.mul_(1.5)
    report: Any = inspect(opened(base), TEXT, "layer-similarity", compare_model=opened(tuned))
    curve, table = report.panels
    assert len(curve.lines[0].x) == 3
    assert curve.lines[0].y[:2] == pytest.approx((1, 1))
    assert curve.lines[0].y[2] < 0.9999
    changes = dict(zip(table.column("part"), table.column("relative change"), strict=True))
    assert changes.pop("layer 1") == pytest.approx(0.5)
    assert set(changes.values()) == {0.0}
    assert "layer 1 changed most, by 50.00%" in report.caption


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_LSTM])
def test_one_model_is_compared_before_and_after_each_layer(config: Any) -> None:
    base: Any = shaken(config)
    curve: Any = inspect(opened(base), TEXT, "layer-similarity")
    # The layers of the LSTM have other widths than their inputs, and so no cosine.
    assert [line.name for line in curve.lines] == ["mean cosine"] * (config is TINY_GPT2) + ["linear CKA"]
    assert curve.lines[-1].x == (0.0, 1.0)
    if config is TINY_GPT2:
        with torch.no_grad():
            for name, weight in base.blocks[1].named_parameters():
                if "output" in name or "down" in name:
                    weight.zero_()
        curve = inspect(opened(base), TEXT, "layer-similarity")
        assert curve.lines[0].y[1] == pytest.approx(1)  # a layer that adds nothing
        assert curve.lines[0].y[0] < 0.999


def test_kernel_alignment_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(9, 4, generator=generator).double(), torch.randn(9, 6, generator=generator).double()
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert linear_cka(x, y) == pytest.approx(float(expected))
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator).double())
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)


def test_a_comparison_shows_the_first_side_s_head_and_label_on_both() -> None:
    def tuned(seed: int) -> Any:
        torch.manual_seed(seed)
        model = SequenceClassifier(shaken(TINY_GPT2, seed), ("joy", "anger")).double().eval()
        with torch.no_grad():
            model.classifier.weight.mul_(20)
        return opened(model)

    a, b = tuned(1), tuned(2)
    for view in ("attention", "head"):
        first, apart = inspect(a, TEXT, view), inspect(a, TEXT, view, compare_model=b)
        assert apart.title == f"B − A: {first.title}"
    for one, two in ((a, b), (b, a)):
        first, apart = inspect(one, TEXT, "attribution"), inspect(one, TEXT, "attribution", compare_model=two)
        assert apart.title == f"B − A: {first.title}"
    views: Any = [inspect(each, TEXT, "attribution", words=("joy",)) for each in (a, b)]
    apart_: Any = inspect(a, TEXT, "attribution", words=("joy",), compare_model=b)
    assert [span.value for span in apart_.spans] == pytest.approx(
        [y.value - x.value for x, y in zip(views[0].spans, views[1].spans, strict=True)]
    )
    norms: Any = inspect(a, TEXT, "residual-norms", compare_model=b)
    assert [panel.kind for panel in norms.panels] == ["curve", "grid"]


def test_models_that_cannot_be_compared_are_refused_in_a_sentence() -> None:
    base = opened(shaken(TINY_GPT2))
    other = SimpleNamespace(model=shaken(TINY_GPT2), tokenizer=train_tokenizer("characters", ["the zoo " + TEXT]))
    cases: list[tuple[Any, type[ClearstoryError], str]] = [
        (opened(shaken(TINY_LSTM)), CannotDo, "the first model has 2 layers of width 16 and the second 2 of width"),
        (other, CannotDo, "the first model has 16 tokens and the second 16, or different ones"),
    ]
    for second, kind, says in cases:
        with pytest.raises(kind, match=says):
            inspect(base, TEXT, "layer-similarity", compare_model=second)
