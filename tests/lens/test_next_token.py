"""Next token: the view holds the model's own numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting, ContextOverflow, UnknownName
from clearstory.lens.probes.predictions import next_token
from clearstory.lens.registry import VIEWS, load_view
from clearstory.models.base import TokenBatch
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken

TOKENIZER = train_tokenizer("bytes", [])


@pytest.fixture(scope="module")
def model() -> Any:
    return shaken(replace(TINY_GPT2, vocab=TOKENIZER.vocab)).requires_grad_(False)


def test_the_numbers_are_the_models_own(model: Any) -> None:
    view = next_token(model, TOKENIZER, "hello", top=7)
    logits = model.logits(model.forward(TokenBatch(torch.tensor([TOKENIZER.encode("hello")])))[0])[0, -1]
    probabilities = logits.softmax(-1)
    best = probabilities.topk(7)
    assert view.columns == ("token", "id", "logit", "probability")
    assert view.column("id") == best.indices.tolist()
    assert view.column("probability") == pytest.approx(best.values.tolist(), rel=1e-9)
    assert view.column("logit") == pytest.approx(logits[best.indices].tolist(), rel=1e-9)
    assert view.column("token") == [TOKENIZER.display_token(id) for id in best.indices.tolist()]
    bits = -sum(p * math.log2(p) for p in probabilities.tolist() if p)
    assert view.caption is not None
    assert view.caption.startswith(f"Entropy {bits:.2f} bits of at most {math.log2(TOKENIZER.vocab):.2f}")


def test_temperature_sharpens(model: Any) -> None:
    warm, cold = (next_token(model, TOKENIZER, "hello", temperature=t).column("probability")[0] for t in (1.0, 0.5))
    assert cold > warm
    assert "temperature 0.5" in next_token(model, TOKENIZER, "hello", temperature=0.5).title


def test_what_cannot_be_is_refused(model: Any) -> None:
    for bad in ({"top": 0}, {"temperature": 0.0}):
        with pytest.raises(BadSetting):
            next_token(model, TOKENIZER, "a", **bad)
    with pytest.raises(ContextOverflow):
        next_token(model, TOKENIZER, "a" * 99)
    assert next_token(model, TOKENIZER, "a" * 99, truncate="left").rows
    assert next_token(model, TOKENIZER, "").rows  # after the token that texts begin after


def test_every_view_can_be_found() -> None:
    assert all(callable(load_view(name)) for name in VIEWS)
    with pytest.raises(UnknownName, match="did you mean 'next-token'"):
        load_view("nxt-token")
