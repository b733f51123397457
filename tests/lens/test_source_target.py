"""Views of a model that reads a source: the numbers of teacher forcing, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.models.test_transformer_architectures import WRITERS
from tests.tiny import TINY_GPT2, shaken

from clearstory.errors import BadInput, CannotDo, ContextOverflow, UnknownName
from clearstory.lens.probes.predictions import next_token
from clearstory.lens.probes.surprisal import surprisal
from clearstory.lens.registry import check_supported, supported_views
from clearstory.models.base import TokenBatch
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.sentinels import SentinelTokenizer, with_sentinels
from clearstory.text.train_tokenizer import train_tokenizer

TOKENIZER = with_sentinels(train_tokenizer("bytes", []))
BEGIN = 7


@pytest.fixture(scope="module", params=["2017", "t5", "marian"])
def model(request: pytest.FixtureRequest) -> Any:
    config = replace(WRITERS[request.param], vocab=TOKENIZER.vocab, decoder_start_token_id=BEGIN)
    return shaken(config).requires_grad_(False)


def teacher_forced(model: Any, source: str, target: str) -> torch.Tensor:
    """Log-probabilities of every token after the source and each beginning of the target, as training reads them."""
    ids = [*SentinelTokenizer(TOKENIZER).encode(source), TOKENIZER.eos_token_id]
    written = TokenBatch.from_sequences([[BEGIN, *SentinelTokenizer(TOKENIZER).encode(target)]])
    hidden, _ = model.forward(written, source=TokenBatch.from_sequences([ids]))
    logs: torch.Tensor = model.logits(hidden)[0].double().log_softmax(-1)
    return logs


def test_next_tokens_are_those_of_teacher_forcing(model: Any) -> None:
    for target in (None, "", "die K"):
        view = next_token(model, TOKENIZER, "the cat", target=target, top=9)
        logs = teacher_forced(model, "the cat", target or "")[-1]
        best = logs.topk(9)
        assert view.column("id") == best.indices.tolist()
        assert view.column("probability") == pytest.approx(best.values.exp().tolist(), rel=1e-9)
    assert view.title == "Next token after “die K”, source “the cat”"
    other = next_token(model, TOKENIZER, "a dog", target="die K", top=9)
    assert other.column("probability") != view.column("probability")  # the source has an effect


def test_surprisal_is_that_of_the_target(model: Any) -> None:
    target = "né <extra_id_1>!"
    view = surprisal(model, TOKENIZER, "a <extra_id_0>", target=target)
    ids = SentinelTokenizer(TOKENIZER).encode(target)
    logs = teacher_forced(model, "a <extra_id_0>", target)
    nats = [-float(logs[position, id]) for position, id in enumerate(ids)]
    assert [span.value for span in view.spans] == pytest.approx([each / math.log(2) for each in nats], rel=1e-9)
    assert "".join(span.text for span in view.spans) == target
    assert "<extra_id_1>" in [span.text for span in view.spans]
    totals = dict(view.totals)
    assert (totals["tokens"], totals["bytes"], totals["bits per byte"]) == (len(ids), None, None)
    assert view.caption is not None
    assert "since the probability of a target is conditional on its source" in view.caption


def test_an_unsupported_view_names_the_supported_ones(model: Any) -> None:
    assert {"tokens", "next-token", "surprisal", "neighbours", "attention", "heads", "logit-lens"} <= set(
        supported_views(model)
    )
    for name, why in (
        ("gradient-reach", "the capability source, which this model"),
        ("gates", "has no recurrent state"),
    ):
        with pytest.raises(CannotDo, match=f"{why}.*; it supports tokens, .*next-token, surprisal"):
            check_supported(name, model)


def test_a_missing_source_or_target_is_refused(model: Any) -> None:
    opened = SimpleNamespace(model=model, tokenizer=TOKENIZER)
    decoder = SimpleNamespace(model=shaken(replace(TINY_GPT2, vocab=TOKENIZER.vocab)), tokenizer=TOKENIZER)
    with pytest.raises(BadInput, match="give the target with --target"):
        inspect(opened, "the cat", view="surprisal")
    with pytest.raises(BadInput, match="there is no token to predict"):
        inspect(opened, "the cat", view="surprisal", target="")
    for view in ("next-token", "surprisal"):
        with pytest.raises(BadInput, match="give the source text"):
            inspect(opened, "", view=view, target="x")
        with pytest.raises(ContextOverflow, match="target has 24 tokens but the model's context holds 23"):
            inspect(opened, "the cat", view=view, target="x" * 24)
        assert inspect(opened, "the cat", view=view, target="x" * 23).caption
        with pytest.raises(ContextOverflow, match="prompt has 30 tokens"):
            inspect(opened, "x" * 29, view=view, target="x")
        with pytest.raises(CannotDo, match="has no source, so there is no target; leave --target out"):
            inspect(decoder, "a", view=view, target="b")
    assert inspect(opened, "x" * 29, view="next-token", truncate="left").caption
    with pytest.raises(UnknownName, match="the view 'neighbours' has no setting called 'target'"):
        inspect(opened, "a", view="neighbours", target="b")
