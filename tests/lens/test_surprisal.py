"""Surprisal: the bits are the model's own, for every token and in every family."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clearstory.errors import BadInput, BadSetting, CannotDo, UnknownName
from clearstory.evaluation.windows import score_dataset
from clearstory.lens.probes.surprisal import surprisal
from clearstory.lens.registry import VIEWS, check_supported, load_view, supported_views
from clearstory.metrics import NATS_PER_BIT
from clearstory.models.base import TokenBatch
from clearstory.recipes.inference.inspect import inspect
from clearstory.text.token_dataset import encode_text
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import MODELS, TINY_GPT2, TINY_LSTM, VOCAB, shaken

LETTERS = train_tokenizer("characters", ["abcdefghijklmnopqrst "])
TEXT = "a bad cab had a bead in a deep lab " * 4


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def test_the_bits_add_up_to_what_scoring_finds(model: Any) -> None:
    assert LETTERS.vocab == VOCAB
    view = surprisal(model, LETTERS, TEXT)
    ids = LETTERS.encode(TEXT)
    size = int(LETTERS.byte_lengths[ids].sum())
    rows = SimpleNamespace(ids=ids, starts=[0, len(ids)], byte_lengths=LETTERS.byte_lengths, document_bytes=[size])
    score = score_dataset(model, rows, start_token_id=LETTERS.bos_token_id)
    totals = dict(view.totals)
    assert (totals["tokens"], totals["bytes"]) == (score.tokens, score.bytes) == (len(TEXT), len(TEXT))
    assert totals["bits"] == pytest.approx(score.nats / NATS_PER_BIT, rel=1e-9)
    assert totals["bits per byte"] == pytest.approx(score.bits_per_byte, rel=1e-9)
    assert sum(span.value or 0.0 for span in view.spans) == pytest.approx(totals["bits"], rel=1e-9)


def test_the_whole_text_is_shown_and_the_windows_are_described(model: Any) -> None:
    view = surprisal(model, LETTERS, TEXT)
    assert "".join(span.text for span in view.spans) == TEXT
    assert all(span.value is not None for span in view.spans)
    assert view.caption is not None
    assert ("context of 24 tokens" in view.caption) == (model.context is not None)
    assert view.caption.endswith("at least 12 tokens before it." if model.context else "Read whole.")


def test_ranks_and_alternatives_are_those_of_the_logits(model: Any) -> None:
    begin, text = LETTERS.bos_token_id, "a bead"
    view = surprisal(model, LETTERS, text, top=4)
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch.from_sequences([[begin, *LETTERS.encode(text)[:-1]]]), model.init_state())
        logs = model.logits(hidden)[0].double().log_softmax(-1)
    for place, (id, span) in enumerate(zip(LETTERS.encode(text), view.spans, strict=True)):
        assert span.value == pytest.approx(-float(logs[place, id]) / math.log(2), rel=1e-9)
        assert span.cells[:3] == (LETTERS.display_token(id), id, int((logs[place] > logs[place, id]).sum()) + 1)
        best = [LETTERS.display_token(int(i)) for i in logs[place].topk(4).indices]
        assert [part.rsplit(" ", 1)[0] for part in str(span.cells[3]).split(", ")] == best


def test_an_unsupported_view_names_the_supported_ones_of_a_family(model: Any) -> None:
    for name in VIEWS:
        if name in supported_views(model):
            check_supported(name, model)
            continue
        with pytest.raises(CannotDo, match=f"'{name}' needs .* it supports tokens, .*next-token, surprisal"):
            check_supported(name, model)
    assert ("attention" in supported_views(model)) == hasattr(model, "blocks")


def test_inspect_refuses_before_it_computes() -> None:
    opened = SimpleNamespace(model=shaken(TINY_LSTM), tokenizer=LETTERS)
    with pytest.raises(CannotDo, match=r"\(lstm\) has no attention; .*it supports tokens, .*next-token, surprisal"):
        inspect(opened, "a", view="attention")
    assert inspect(opened, "a", view="surprisal").kind == "highlighted_text"
    with pytest.raises(UnknownName, match="did you mean 'surprisal'"):
        load_view("suprisal")


def test_bytes_of_one_character_have_their_own_surprisal_and_the_text_is_complete() -> None:
    tokenizer = train_tokenizer("bytes", [])
    text = "né 吾\n"
    view = surprisal(shaken(replace(TINY_GPT2, vocab=tokenizer.vocab)), tokenizer, text)
    assert [span.text for span in view.spans] == ["n", "é", "", " ", "吾", "", "", "\n"]
    assert dict(view.totals)["bytes"] == len(text.encode()) == len(view.spans)
    assert encode_text(tokenizer, [text]).bytes == len(text.encode())


def test_a_tokenizer_that_loses_white_space_has_bits_but_none_per_byte() -> None:
    words = train_tokenizer("words", ["a cat sat"])
    view = surprisal(shaken(replace(TINY_GPT2, vocab=words.vocab)), words, "a  cat\n")
    assert [(span.text, span.value is None) for span in view.spans] == [
        ("a", False),
        ("  ", True),
        ("cat", False),
        ("\n", False),
    ]
    assert dict(view.totals)["bits per byte"] is None
    assert "are not defined" in str(view.caption)


def test_without_a_start_token_the_first_is_not_counted() -> None:
    class Beginless:
        bos_token_id = eos_token_id = None

        def __getattr__(self, name: str) -> Any:
            return getattr(LETTERS, name)

    model = shaken(TINY_GPT2)
    view = surprisal(model, Beginless(), "abc")  # type: ignore[arg-type]
    assert [span.value is None for span in view.spans] == [True, False, False]
    assert dict(view.totals)["bytes"] == 2
    with pytest.raises(BadInput, match="too short"):
        surprisal(model, Beginless(), "a")  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    model = shaken(TINY_GPT2)
    with pytest.raises(BadInput, match="too short"):
        surprisal(model, LETTERS, "")
    with pytest.raises(BadSetting, match="top is 0"):
        surprisal(model, LETTERS, "a", top=0)
    assert surprisal(model, LETTERS, "a", top=99).spans
    assert not torch.is_inference_mode_enabled()
