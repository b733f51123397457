"""Neighbours: the highest cosines."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional as F

from clearstory.errors import BadInput
from clearstory.lens.neighbours import neighbours
from clearstory.text.learning import learn
from tiny import MODELS


def test_neighbours_are_the_highest_cosines() -> None:
    model: Any = next(iter(MODELS.values()))()
    tokenizer = learn("characters", ["abcdefghij"])
    view = neighbours(model, tokenizer, "c", top=3)
    vectors = (model.output_weight - model.output_weight.mean(0)).detach()
    own = tokenizer.encode("c")[0]
    by_hand = sorted(
        ((float(F.cosine_similarity(vectors[i], vectors[own], 0)), i) for i in range(model.vocab) if i != own),
        reverse=True,
    )
    assert [cosine for _, cosine in view.rows] == pytest.approx([cosine for cosine, _ in by_hand[:3]], abs=6e-4)
    with pytest.raises(BadInput, match="'abc' is not one token but a · b · c"):
        neighbours(model, tokenizer, "abc")
