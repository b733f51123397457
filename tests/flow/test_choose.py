"""Task choose: the right one of several continuations by likelihood; its data, training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from clearstory.errors import BadInput, ContextOverflow
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.transformer.presets import CLEAR_TRANSLATE
from clearstory.tasks.base import TaskSettings
from clearstory.tasks.choose import Choose, ChooseTarget, make_choose
from clearstory.tasks.data.choices import ChoiceQuestion, read_choice_questions
from clearstory.tasks.data.examples import DataSplits, LabeledData
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_SEQ2SEQ, shaken

FORMS: dict[str, tuple[dict[str, Any], ChoiceQuestion]] = {
    "arc": (
        {"question": "2 + 2?", "choices": {"text": ["3", "4"], "label": ["A", "B"]}, "answerKey": "B"},
        ChoiceQuestion("2 + 2?", ("3", "4"), 1),
    ),
    "arc, published": (
        {"question": {"stem": "2 + 2?", "choices": [{"text": "3", "label": "1"}, {"text": "4", "label": "2"}]}}
        | {"answerKey": "2"},
        ChoiceQuestion("2 + 2?", ("3", "4"), 1),
    ),
    "piqa": (
        {"goal": "boil", "sol1": "heat it", "sol2": "cool it", "label": 0},
        ChoiceQuestion("boil", ("heat it", "cool it"), 0),
    ),
    "hellaswag": (
        {"query": "A man", "choices": ["sits.", "is.", "was."], "gold": 2},
        ChoiceQuestion("A man", ("sits.", "is.", "was."), 2),
    ),
    "blimp": (
        {"sentence_good": "He sees himself.", "sentence_bad": "He sees herself.", "field": "syntax"},
        ChoiceQuestion("", ("He sees himself.", "He sees herself."), 0),
    ),
    "by text": (
        {"question": "Capital?", "options": ["Rome", "Paris"], "answer": "Paris"},
        ChoiceQuestion("Capital?", ("Rome", "Paris"), 1),
    ),
    "letters": (
        {"question": "Capital?", "A": "Rome", "B": "Paris", "answer": "B"},
        ChoiceQuestion("Capital?", ("Rome", "Paris"), 1),
    ),
}


NO_DATA: DataSplits[Any] = DataSplits(LabeledData((), (), "choices"), LabeledData((), (), "choices"))


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_read(form: str, tmp_path: Path) -> None:
    row, wanted = FORMS[form]
    [found] = read_choice_questions(write(tmp_path / "a.jsonl", row)).examples
    assert replace(found, location="") == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["3", " "]}, r"line 2: choice 2 of 2 is empty"),
        ({"choices": ["3"]}, r"line 2 has 1 choice; give at least two"),
        ({"answer": "five"}, r"line 2: the answer 'five' is not one of the choices \('3', '4'\)"),
        ({"answer": None}, r"line 2 has no answer"),
        ({"question": ""}, r"line 2: the question is empty"),
    ],
)
def test_what_is_no_question_is_told_with_its_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "choices": ["3", "4"], "answer": "4"}
    with pytest.raises(BadInput, match=message):
        read_choice_questions(write(tmp_path / "a.jsonl", row, row | change))


def test_training_and_prediction_have_one_loss() -> None:
    tokenizer = train_tokenizer("bytes", [])
    model: Any = shaken(replace(TINY_CLEAR, vocab=tokenizer.vocab, context=64)).requires_grad_(False)
    task = Choose(tokenizer, 64)
    examples = [
        ChoiceQuestion("one two", ("three", "4"), 0),
        ChoiceQuestion("", ("He sits.", "He sit.", "Sits he."), 1),
    ]
    rows = task.encode(examples)
    batch = task.batch(rows)
    assert (batch.targets != IGNORE_INDEX).sum() == sum(len(each.continuation) for row in rows for each in row.requests)
    loss = task.loss(model, batch)["choice"]
    scores = task.score(task.predict(model, rows), rows)
    assert float(loss.total) / loss.count == pytest.approx(scores["loss"], abs=1e-9)
    halves = [task.loss(model, each)["choice"].total for each in batch.split(2)]
    assert torch.stack(halves).sum().item() == pytest.approx(float(loss.total), abs=1e-9)


def small_encoder_decoder(kind: str, vocab: int, start: int) -> Any:
    """An encoder-decoder with a context of 32 tokens, or without a limit."""
    if kind == "lstm":
        return replace(TINY_SEQ2SEQ, vocab=vocab, decoder_start_token_id=start)
    sizes: dict[str, int] = {"width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32}
    return replace(
        CLEAR_TRANSLATE,
        vocab=vocab,
        context=32,
        decoder_start_token_id=start,
        layers=1,
        dropout=0.0,
        **cast(Any, sizes),
    )


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_an_encoder_decoder_reads_the_question_as_its_source(kind: str) -> None:
    tokenizer = train_tokenizer("bytes", [])
    end = cast(int, tokenizer.eos_token_id)
    model: Any = shaken(small_encoder_decoder(kind, tokenizer.vocab, end)).requires_grad_(False)
    task = make_choose(NO_DATA, model, tokenizer, TaskSettings())
    assert isinstance(task, ChooseTarget)
    examples = [
        ChoiceQuestion("one two", ("three", "4"), 0),
        ChoiceQuestion("", ("He sits.", "He sit.", "Sits he."), 1),
    ]
    rows = task.encode(examples)
    assert rows[0].requests[0].context == (*tokenizer.encode("one two"), end)
    found = task.predict(model, rows)
    with torch.no_grad():  # one choice by hand
        source, target = rows[0].requests[1].context, rows[0].requests[1].continuation
        hidden, _ = model.forward(
            TokenBatch.from_sequences([[end, *target[:-1]]]), source=TokenBatch.from_sequences([source])
        )
        logprobs = model.logits(hidden)[0].double().log_softmax(-1)
    assert found[0][1] == pytest.approx(float(logprobs[range(len(target)), list(target)].sum()), abs=1e-6)
    batch = task.batch(rows)
    loss = task.loss(model, batch)["choice"]
    assert float(loss.total) / loss.count == pytest.approx(task.score(found, rows)["loss"], abs=1e-6)
    halves = [task.loss(model, each)["choice"].total for each in batch.split(2)]
    assert torch.stack(halves).sum().item() == pytest.approx(float(loss.total), abs=1e-5)


def test_a_long_source_is_an_error_with_both_lengths() -> None:
    tokenizer = train_tokenizer("bytes", [])
    end = cast(int, tokenizer.eos_token_id)
    model: Any = shaken(small_encoder_decoder("transformer", tokenizer.vocab, end))
    long = ChoiceQuestion("x" * 40, ("yes", "no"), 0, "a.jsonl, line 1")
    task = make_choose(NO_DATA, model, tokenizer, TaskSettings())
    with pytest.raises(ContextOverflow, match=r"a\.jsonl, line 1: the question has 41 tokens.*holds 32; pass"):
        task.encode([long])
    [row] = make_choose(NO_DATA, model, tokenizer, TaskSettings(truncate="left")).encode([long])
    assert len(row.requests[0].context) == 32
    with pytest.raises(ContextOverflow, match=r"a choice has 40 tokens.*holds 32; shorten it"):
        task.encode([ChoiceQuestion("x", ("y" * 40, "no"), 0, "a.jsonl, line 1")])


def test_an_encoder_decoder_learns_to_choose(tmp_path: Path, cli: Callable[..., Any]) -> None:
    letters = ["a", "t", "s", "o"]
    rows = [
        {"question": f"{one}{two}{letter}", "choices": letters, "answer": letter}
        for one in "nmdgei"
        for two in "nmd"
        for letter in letters
    ]
    train = write(tmp_path / "train.jsonl", *rows)
    tokenizer = train_tokenizer("bytes", [])
    model = build(small_encoder_decoder("transformer", tokenizer.vocab, cast(int, tokenizer.eos_token_id)), seed=1)
    save_model(tmp_path / "model", model, tokenizer, ModelCard(name="model", family="transformer", parameters=0))
    answer = cli(
        *("finetune", tmp_path / "model", train, "--task", "choose", "--out", tmp_path / "run", "--steps", "60"),
        *("--validation", "0.2", "--training.learning_rate", "0.01", "--training.threads", "1", "--json"),
    )
    assert answer.status == 0, answer.err
    found = json.loads(cli("evaluate", tmp_path / "run", train, "--task", "choose", "--json").out)
    assert found["metrics"]["acc"] > 0.5


def test_a_long_question_loses_its_beginning_only_if_that_is_said() -> None:
    tokenizer = train_tokenizer("bytes", [])
    example = ChoiceQuestion("x" * 30, ("yes", "no"), 0, "a.jsonl, line 1")
    with pytest.raises(ContextOverflow, match=r"a\.jsonl, line 1: the question with a choice has 33 tokens.*holds 16"):
        Choose(tokenizer, 16).encode([example])
    [row] = Choose(tokenizer, 16, truncate=True).encode([example])
    assert [len(each.context) + len(each.continuation) - 1 for each in row.requests] == [16, 16]


def test_it_learns_to_choose_and_evaluate_agrees(made: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    letters = ["a", "t", "s", "o"]

    def quiz(name: str, noise: str) -> Path:
        rows = [
            {"question": f"{one}{two}{letter}", "choices": letters, "answer": letter}
            for one in noise
            for two in "nmd"
            for letter in letters
        ]
        return write(tmp_path / name, *rows)

    train, file = quiz("train.jsonl", "nmdg"), quiz("quiz.jsonl", "ei")
    answer = cli(
        *("finetune", made.run, train, "--task", "choose", "--out", tmp_path / "run", "--test", file, "--json"),
        *("--steps", "60", "--training.learning_rate", "0.003", "--validation", "0.25"),
    )
    assert answer.status == 0, answer.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["test"]["metrics"]["acc"] > 0.5
    found = json.loads(cli("evaluate", tmp_path / "run", file, "--task", "choose", "--json").out)
    assert found["metrics"] == pytest.approx(report["test"]["metrics"], abs=0.1)
    assert found["details"]["chance"] == 0.25
    refused = cli("finetune", made.run, train, "--task", "choose", "--training.label_smoothing", "0.1")
    assert "label_smoothing is for labels" in refused.last
