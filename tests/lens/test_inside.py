"""Neighbours: the highest cosines."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional as F

from clearstory.errors import BadInput
from clearstory.lens.probes.embeddings import neighbours
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS


def test_neighbours_are_the_highest_cosines() -> None:
    model: Any = next(iter(MODELS.values()))()
    tokenizer = train_tokenizer("characters", ["abcdefghij"])
    view = neighbours(model, tokenizer, "c", top=3)
    vectors = model.output_weight.detach()[: tokenizer.vocab]
    vectors = vectors - vectors.mean(0)
    own = tokenizer.encode("c")[0]
    assert len(view.column("token")) == 3
    by_hand = sorted(
        ((float(F.cosine_similarity(vectors[i], vectors[own], 0)), i) for i in range(tokenizer.vocab) if i != own),
        reverse=True,
    )
    assert view.column("cosine") == pytest.approx([cosine for cosine, _ in by_hand[:3]], abs=2e-6)
    with pytest.raises(BadInput, match="'abc' is not one token but a · b · c"):
        neighbours(model, tokenizer, "abc")
