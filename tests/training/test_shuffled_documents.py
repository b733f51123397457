"""Documents in random order: every document once an epoch, whole, so that the order of a list cannot be learned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.training.preparation import make_objective
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.batches import ShuffledIds, StreamBatches, WindowBatches

SIZES = (3, 1, 5, 2, 4, 1, 6)
"""Documents of so many tokens: document d is d, d, ..., and ends with 100 + d."""


def dataset() -> Any:
    ids = np.concatenate([[d] * (size - 1) + [100 + d] for d, size in enumerate(SIZES)])
    return SimpleNamespace(ids=ids, starts=np.cumsum([0, *SIZES]))


def test_documents_are_whole_and_each_is_there_once() -> None:
    data = dataset()
    shuffled = ShuffledIds(data, np.random.default_rng(0))[np.arange(len(data.ids))]
    ends = np.flatnonzero(shuffled >= 100)
    found = [part.tolist() for part in np.split(shuffled, ends[:-1] + 1)]
    expected = [data.ids[start:stop].tolist() for start, stop in zip(data.starts, data.starts[1:], strict=False)]
    assert found != expected
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("kind", [WindowBatches, StreamBatches])
def test_each_epoch_has_an_order_of_its_own_and_a_seed_repeats_it(kind: Any) -> None:
    data = dataset()
    one, again, plain = (kind(data, 3, 2, 5, shuffle_documents=on) for on in (True, True, False))
    for index in range(12):
        batch = one.batch(index)
        assert batch.tokens.ids.tolist() == again.batch(index).tokens.ids.tolist()
        assert batch.targets[:, :-1].tolist() == batch.tokens.ids[:, 1:].tolist()
        # Within a document, a token of it follows; after its end, any document.
        for before, after in zip(batch.tokens.ids.flatten().tolist(), batch.targets.flatten().tolist(), strict=True):
            assert before >= 100 or after in (before, 100 + before)
    first = [plain.batch(index).tokens.ids.tolist() for index in range(4)]
    assert first != [one.batch(index).tokens.ids.tolist() for index in range(4)]
    orders = {tuple(one.ids(epoch)[np.arange(len(data.ids))].tolist()) for epoch in range(5)}
    assert len(orders) == 5


def test_lines_are_shuffled_unless_that_is_refused() -> None:
    tokenizer = train_tokenizer("characters", ["abc\n"])

    def shuffles(**settings: Any) -> bool:
        recipe = build_train_recipe({"text": ("t.txt",), "objective": "causal", **settings})
        return bool(make_objective(recipe, tokenizer).shuffle_documents)  # type: ignore[attr-defined]  # Causal's

    assert not shuffles()
    assert shuffles(data={"lines": True})
    assert shuffles(training={"shuffle_documents": True})
    assert not shuffles(data={"lines": True}, training={"shuffle_documents": False})
