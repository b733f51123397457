"""N-gram counts: what is shown adds up to the model's probabilities."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clearstory.errors import BadSetting
from clearstory.lens.probes.ngram_counts import matching_contexts, ngram_counts
from clearstory.lens.views import Table
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS

TOKENIZER = train_tokenizer("characters", ["abcdefghijklmnopqrst "])
NGRAMS = ["ngram", "pruned", "katz", "laplace"]


@pytest.mark.parametrize("name", NGRAMS)
@pytest.mark.parametrize("ids", [[3, 1, 4], [5], [7, 15, 6, 1]])
def test_the_longest_contexts_probabilities_are_the_models(name: str, ids: list[int]) -> None:
    model: Any = MODELS[name]()
    hidden, _ = model.forward(TokenBatch.from_sequences([ids]))
    expected = model.logits(hidden[0, -1]).exp()
    found = matching_contexts(model, ids)
    assert found[-1].ids == ()
    assert [part.ids for part in found[:-1]] == [tuple(ids[len(ids) - part.order + 1 :]) for part in found[:-1]]
    for each in found[0].seen:
        assert each.probability == pytest.approx(float(expected[each.id]), rel=1e-9)
    if model.config.counts:
        assert all((each.count or 0) > 0 for each in found[0].seen if found[0].order > 1)


def test_own_share_and_backoff_add_up() -> None:
    model: Any = MODELS["ngram"]()
    found = matching_contexts(model, [3, 1])
    for longer, shorter in pairwise(found):
        below = {each.id: each.probability for each in shorter.seen}
        assert longer.backoff is not None
        for each in longer.seen:
            assert each.own_share is not None
            if each.id in below:
                assert each.probability == pytest.approx(each.own_share + longer.backoff * below[each.id])


def test_a_text_of_five_tokens_by_hand() -> None:
    model = build(NGramConfig(vocab=5, order=2, smoothing="witten-bell")).double()
    rows = SimpleNamespace(ids=np.array([2, 3, 2, 3, 4]), starts=np.array([0, 5]), byte_lengths=None)
    assert len(list(model.fit(rows))) == 2
    [after, single] = matching_contexts(model, [2])
    # After 2 only 3 occurs, twice: own share 2 / (2 + 1), backoff weight 1 / (2 + 1).
    [seen] = after.seen
    assert (seen.id, seen.count, after.total) == (3, 2, 2)
    assert (seen.own_share, after.backoff) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    # P(3) = (2 + 3 · 1/5) / (5 + 3)
    third = next(each for each in single.seen if each.id == 3)
    assert third.probability == pytest.approx((2 + 3 / 5) / 8)
    assert seen.probability == pytest.approx(2 / 3 + (2 + 3 / 5) / 8 / 3)
    table = ngram_counts(model, train_tokenizer("characters", ["ab c"[:3]]), "b").panels[1]
    assert isinstance(table, Table)
    # Witten-Bell makes of a count of 2 in 2 the share 2/3, which is a count of 4/3 in 2.
    assert table.rows[0][3:6] == (2, pytest.approx(2 - 4 / 3), pytest.approx(2 / 3))


def test_the_caption_has_the_longest_context() -> None:
    model = MODELS["ngram"]()
    view = ngram_counts(model, TOKENIZER, "abcab", top=2)
    contexts, rows = view.panels
    assert isinstance(contexts, Table)
    assert isinstance(rows, Table)
    assert contexts.rows[-1][1] == "(nothing)"
    assert len(rows.rows) <= 2 * len(contexts.rows)
    assert "The longest context found is the last token" in str(rows.caption)
    longest = ngram_counts(model, TOKENIZER, TOKENIZER.decode([7, 15, 6, 1]))
    assert torch.tensor([len(step.rows) for step in longest.panels if isinstance(step, Table)]).min() > 0
    with pytest.raises(BadSetting, match="top is 0"):
        ngram_counts(model, TOKENIZER, "a", top=0)
