"""Comparing and contexts as the server answers them: what the library says of both sides, or one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_home import TEXT

import clearstory
from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.contextual_embeddings import contextual_embeddings
from clearstory.lens.probes.word_in_context import EXAMPLE_SENTENCES
from clearstory.lens.rendering.render import render
from clearstory.recipes.inference.inspect import inspect
from clearstory.studio import context_api
from clearstory.studio.context_api import WORD_BANKS, compare_contexts
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, shaken

CLEAR, LSTM, SHORT = "models/clear", "models/lstm", "runs/short/checkpoints"


def request_difference(studio: TestClient, status: int = 200, **result: Any) -> Any:
    """The data of an answer, or its sentence."""
    answer = studio.post("/api/view-difference", json=result)
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else answer.json()["error"]


@pytest.mark.parametrize(
    ("view", "settings"),
    [("next-token", {"top": 5}), ("surprisal", {}), ("logit-lens", {}), ("attention", {"layer": 0, "head": 1})],
)
def test_both_sides_and_their_difference_are_the_librarys(
    made: Path, studio: TestClient, view: str, settings: dict[str, Any]
) -> None:
    sides = {"model": CLEAR, "text": "the cat", "compare_model": CLEAR, "compare_text": "the dog"}
    result = request_difference(studio, view=view, settings=settings, **sides)
    both = [inspect(made / CLEAR, text, view, **settings) for text in ("the cat", "the dog")]
    assert [result["a"], result["b"]] == [each.to_json() for each in both]
    apart = inspect(made / CLEAR, "the cat", view, compare_text="the dog", **settings)
    assert result["difference"] == apart.to_json()
    assert result["problems"] == {}
    answer = studio.post("/api/view-difference", json={**sides, "view": view, "settings": settings, "format": "svg"})
    assert answer.text == render(apart, "svg")


def test_what_is_not_named_is_as_on_the_other_side(made: Path, studio: TestClient) -> None:
    result = request_difference(
        studio, model=f"{SHORT}/step-000008", text="the cat", compare_model=f"{SHORT}/step-000000", view="surprisal"
    )
    runs = [made / SHORT / name for name in ("step-000008", "step-000000")]
    assert result["difference"] == inspect(runs[0], "the cat", "surprisal", compare_model=runs[1]).to_json()
    same = request_difference(studio, model=CLEAR, text="the cat", view="surprisal")
    assert "No number differs" in same["difference"]["caption"]


def test_one_side_is_shown_where_the_other_or_their_difference_cannot_be(studio: TestClient) -> None:
    result = request_difference(studio, model=CLEAR, text="the cat", compare_text="a dog", view="logit-lens")
    assert result["a"]["kind"] == result["b"]["kind"] == "grid"
    assert result["difference"] is None
    assert result["problems"] == {"difference": result["problems"]["difference"]}
    assert "A has 7 columns and B has 5" in result["problems"]["difference"]
    one = request_difference(studio, model=CLEAR, text="the cat", compare_text="the cat " * 9)
    assert one["b"] is one["difference"] is None
    assert "context holds 24" in one["problems"]["b"]
    other = request_difference(studio, model=CLEAR, text="the cat", compare_model=LSTM, view="attention")
    assert "needs attention" in other["problems"]["b"]


def test_what_cannot_be_compared_is_one_sentence(studio: TestClient) -> None:
    assert "unknown view 'nex'" in request_difference(studio, 404, model=CLEAR, text="the", view="nex")
    assert "no setting called 'tip'" in request_difference(studio, 404, model=CLEAR, text="the", settings={"tip": 1})
    assert "top is 0" in request_difference(studio, 400, model=CLEAR, text="the", settings={"top": 0})
    assert "top" in request_difference(studio, 400, model=CLEAR, text="the", settings={"top": "many"})
    assert "the text is" in request_difference(studio, 400, model=CLEAR, text="", view="attention")
    assert "none" in request_difference(studio, 400, model=CLEAR, text="the", compare_model="none")
    assert "A has 3 rows" in request_difference(
        studio, 400, model=CLEAR, text="the", compare_text="a", view="attention", format="svg", settings={"head": 0}
    )


# ---- contexts

TOKENIZER = train_tokenizer("characters", EXAMPLE_SENTENCES)


def wide(seed: int = 1) -> Any:
    """A model that the bank fits into."""
    return shaken(replace(TINY_CLEAR, vocab=TOKENIZER.vocab, context=80), seed).float()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A bank of a few sentences."""
    sentences = EXAMPLE_SENTENCES[:3]
    monkeypatch.setattr(context_api, "EXAMPLE_SENTENCES", sentences)
    return sentences


def test_every_layers_numbers_are_those_of_the_view(few: tuple[str, ...]) -> None:
    model = wide()
    texts = {"other_text": "a fashion model", "word": "model"}
    result = compare_contexts(model, TOKENIZER, "a machine learning model", **texts, top=4)
    view = contextual_embeddings(
        model, TOKENIZER, "a machine learning model", **texts, layer=1, top=4, sentences_file=few
    )
    plain = [step.to_json() for step in view.panels]
    assert [
        result["similarity"],
        result["trajectories"],
        *result["static_neighbours"],
        *result["nearest"]["1"],
    ] == plain[:-1]
    heads = {tuple(row[:2]): tuple(row[2:5]) for layer in result["heads"].values() for row in layer["rows"]}
    assert len(heads) == 2 * 4
    for row in plain[-1]["rows"]:
        assert heads[tuple(row[:2])] == tuple(row[2:5])
    lines = plain[0]["lines"]
    assert [row["centred"] for row in result["layers"]] == lines[1]["y"]
    last = result["layers"][-1]["static_similarity"]
    assert last == pytest.approx([sum(grid["values"][-1]) / 10 for grid in result["static_neighbours"]])
    assert result["title"] == view.title


def test_the_bank_is_read_once_for_a_model(few: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide()
    texts = {"other_text": "a fashion model", "word": "model"}
    first = compare_contexts(model, TOKENIZER, "a model", **texts)
    kept = WORD_BANKS[model]
    monkeypatch.setattr(context_api, "build_word_bank", None)
    assert compare_contexts(model, TOKENIZER, "a model", **texts) == first
    assert WORD_BANKS[model] is kept
    assert wide(2) not in WORD_BANKS


def test_another_word_or_the_second_of_two_may_be_marked(few: tuple[str, ...]) -> None:
    model = wide()
    text = "a model of a model"
    result = compare_contexts(model, TOKENIZER, text, other_text=text, word="model", other_occurrence=2)
    assert result["tokens"] == [list(range(2, 7)), list(range(13, 18))]
    assert result["layers"][0]["cosine"] == pytest.approx(1)
    other = compare_contexts(model, TOKENIZER, text, other_text="a network", word="model", other_word="network")
    assert other["layers"][0]["cosine"] < 1
    assert other["title"] == "‘model’ in “a model of a model” and ‘network’ in “a network”"
    assert other["static_neighbours"][0]["column_labels"] != other["static_neighbours"][1]["column_labels"]
    with pytest.raises(BadSetting, match="occurrence is 3 and ‘model’ occurs 2 times"):
        compare_contexts(model, TOKENIZER, text, other_text=text, word="model", occurrence=3)


def test_a_sentence_is_found_where_none_is_given(few: tuple[str, ...]) -> None:
    model = wide()
    assert compare_contexts(model, TOKENIZER, "the network", word="network")["other_text"] == EXAMPLE_SENTENCES[2]
    with pytest.raises(BadInput, match="no example sentence contains ‘zebra’"):
        compare_contexts(model, TOKENIZER, "a zebra", word="zebra")
    with pytest.raises(BadInput, match="no word is selected"):
        compare_contexts(model, TOKENIZER, "a zebra")
    small = shaken(replace(TINY_CLEAR, vocab=TOKENIZER.vocab, context=51)).float()
    longer = [each for each in few if len(each) > 50]
    assert longer
    assert compare_contexts(small, TOKENIZER, "a model", word="model")["other_text"] not in longer


def test_a_model_without_heads_says_so_by_having_none(made: Path, studio: TestClient) -> None:
    opened = clearstory.open(made / LSTM)
    result = compare_contexts(opened.model, opened.tokenizer, TEXT, other_text="a cat", word="cat")
    assert result["heads"] is None
    assert [row["name"] for row in result["layers"]] == ["embedding", "0", "1"]
    answer = studio.post(
        "/api/arrays", json={"model": LSTM, "text": TEXT, "function": "compare_contexts", "settings": {"word": "dog"}}
    )
    assert answer.status_code == 400
    assert "‘dog’ does not occur" in answer.json()["error"]
    ready = SimpleNamespace(model=opened.model, tokenizer=opened.tokenizer)
    assert (
        inspect(ready, TEXT, "contextual-embeddings", other_text="a cat", word="cat").panels[0].to_json()
        == result["similarity"]
    )  # type: ignore[union-attr]
