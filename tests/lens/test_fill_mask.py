"""Fill mask: what an encoder predicts at masked positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, CannotDo
from clearstory.formats.folders import OpenedModel
from clearstory.formats.model_card import ModelCard
from clearstory.lens.probes.predictions import fill_mask
from clearstory.lens.registry import check_supported, supported_views
from clearstory.lens.views import Table
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.presets import BERT_TINY
from clearstory.recipes.inference.fill_mask import fill_mask as filled
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, shaken

PIECES = train_tokenizer("wordpiece:20", ["a b c", "a c b"])
SMALL: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 24}
CONFIG = replace(BERT_TINY, **SMALL, vocab=PIECES.vocab)
MODEL: Any = shaken(CONFIG).eval()


def step(view: Any, number: int = 0) -> Table:
    assert isinstance(view.panels[number], Table)
    return view.panels[number]  # type: ignore[no-any-return]


def test_a_mask_is_filled_as_by_the_command() -> None:
    [output] = filled(OpenedModel(MODEL, PIECES, ModelCard()), "a [MASK] c b", top=4)
    rows = step(fill_mask(MODEL, PIECES, "a [MASK] c b", top=4)).rows
    assert [(row[0], row[1]) for row in rows] == [(each.token, each.id) for each in output.masks[0]]
    assert [row[2] for row in rows] == pytest.approx([each.probability for each in output.masks[0]], rel=1e-6)
    assert step(fill_mask(MODEL, PIECES, "a [MASK] c b")).title == "Position 2"  # the original token is unknown


def test_positions_are_masked_and_predicted() -> None:
    view = fill_mask(MODEL, PIECES, "a b c", mask=(3, 1), top=PIECES.vocab)
    assert [each.title.split(",")[0] for each in view.panels] == ["Position 1", "Position 3"]
    cls, sep, hides = PIECES.cls_token_id, PIECES.sep_token_id, PIECES.mask_token_id
    (a, b, c) = PIECES.encode("a b c")
    with torch.no_grad():  # both are masked
        logits = MODEL.logits(MODEL.encode(TokenBatch.from_sequences([[cls, hides, b, hides, sep]])))[0].double()
    for number, (position, id) in enumerate([(1, a), (3, c)]):
        chances = logits[position].softmax(-1)
        rows = {row[1]: row[2] for row in step(view, number).rows}
        assert sum(rows.values()) == pytest.approx(1)
        assert [rows[each] for each in range(PIECES.vocab)] == pytest.approx(chances.tolist(), rel=1e-6)
        rank = int((chances > chances[id]).sum()) + 1
        assert f"rank {rank}, {float(chances[id]):.2%}, {-math.log2(float(chances[id])):.2f} bits" in str(
            step(view, number).caption
        )
    assert str(view.caption).startswith(f"{sum(int(logits[p].argmax()) == i for p, i in [(1, a), (3, c)])} of 2 masked")


def test_the_last_token_is_masked_by_default() -> None:
    assert step(fill_mask(MODEL, PIECES, "a b c")).title == "Position 3, originally ‘c’"
    # The original token is shown, however unlikely.
    assert PIECES.encode("c")[0] in {row[1] for row in step(fill_mask(MODEL, PIECES, "a b c", top=1)).rows}


@pytest.mark.parametrize(
    ("position", "words"),
    [(0, "is the special token"), (4, "is the special token"), (5, "does not exist"), (-1, "does not exist")],
)
def test_positions_that_cannot_be_masked_are_refused(position: int, words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        fill_mask(MODEL, PIECES, "a b c", mask=(position,))
    with pytest.raises(BadSetting, match="top is 0"):
        fill_mask(MODEL, PIECES, "a b c", top=0)


def test_it_needs_an_encoder_with_a_masked_token_head() -> None:
    assert "fill-mask" in supported_views(MODEL)
    bare: Any = shaken(replace(CONFIG, mlm_transform=False))
    for other in (bare, shaken(TINY_CLEAR)):
        assert "fill-mask" not in supported_views(other)
        with pytest.raises(CannotDo, match="needs a masked-token head"):
            check_supported("fill-mask", other)
