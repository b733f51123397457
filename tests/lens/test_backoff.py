"""Backoff: the table shows which n-gram each probability comes from."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearstory.errors import BadInput, CannotDo
from clearstory.lens.probes.ngram_counts import backoff
from clearstory.lens.registry import check_supported, supported_views
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken

TEXT = "ab abc ab abd"


def model(tokenizer: Any, **settings: Any) -> Any:
    made: Any = build(
        NGramConfig(vocab=tokenizer.vocab, order=3, bos_token_id=tokenizer.bos_token_id, **settings)
    ).double()
    ids = np.array(tokenizer.encode(TEXT))
    assert list(made.fit(SimpleNamespace(ids=ids, starts=np.array([0, len(ids)]), byte_lengths=np.ones(10))))
    return made


def test_each_token_has_the_order_of_its_probability() -> None:
    tokenizer = train_tokenizer("characters", [TEXT])
    view = backoff(model(tokenizer, smoothing="witten-bell"), tokenizer, "abdd")
    assert view.column("token") == ["a", "b", "d", "d"]
    # The text's beginning and a; after it b; "ab" and d once; "bd" was the text's end, and of d alone nothing is known.
    assert view.column("order") == [2, 3, 3, 1]
    assert view.column("count") == [1, 1, 1, 1]
    assert view.column("context") == ["<|endoftext|>", "<|endoftext|> a", "a b", ""]
    assert view.column("backoff weights of longer contexts") == ["", "", "", "3: 100%, 2: 100%"]
    # Witten-Bell, 'd' of 13 characters with 5 kinds among 7 tokens: (1 + 5 / 7) / (13 + 5).
    assert view.rows[3][3] == pytest.approx((1 + 5 / 7) / 18)
    assert (
        view.caption
        == "Of 4 tokens, 2 from order 3, 1 from order 2, 1 from order 1; the longest n-grams have 3 tokens."
    )


def test_probabilities_are_the_models_own_for_every_smoothing() -> None:
    tokenizer = train_tokenizer("characters", [TEXT])
    for smoothing in ("kneser-ney", "katz", "laplace"):
        made = model(tokenizer, smoothing=smoothing, counts=False)
        view = backoff(made, tokenizer, "abda")
        assert view.column("count")[0] is None
        shares = [float(str(value)) for value in view.column("probability")]
        assert all(0 < share < 1 for share in shares)
        assert sum(map(math.log, shares)) < 0


def test_what_it_cannot_show_is_refused() -> None:
    tokenizer = train_tokenizer("characters", [TEXT])
    assert "backoff" in supported_views(model(tokenizer))
    with pytest.raises(CannotDo, match="has no n-gram tables"):
        check_supported("backoff", shaken(TINY_GPT2))
    with pytest.raises(BadInput, match="too short"):
        backoff(model(tokenizer), tokenizer, "")
