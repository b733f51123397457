"""clearstory prompt: templates, shots, answers by likelihood and by generation, calibration, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clearstory
from clearstory.errors import BadInput, UnknownName
from clearstory.evaluation.continuations import ContinuationScorer
from clearstory.formats.folders import open_model
from clearstory.models.build import build
from clearstory.recipes.prompting.answers import LikelihoodAnswers, choose, softmax
from clearstory.recipes.prompting.examples import PromptExample, content_free
from clearstory.recipes.prompting.prompts import PromptMaker
from clearstory.recipes.prompting.template import PromptTemplate
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_CLEAR, TINY_LSTM, TINY_NGRAM

GOLDEN = Path(__file__).parent.parent / "golden"
LABELS = ("good", "bad")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


def opened(config: Any = TINY_CLEAR, **config_of_tokenizer: Any) -> Any:
    """A tiny model of bytes."""
    tokenizer = train_tokenizer("bytes", [])
    tokenizer.config.update(config_of_tokenizer)
    sizes = {"vocab": tokenizer.vocab} | ({"context": 512} if config.family == "transformer" else {})
    return SimpleNamespace(model=build(replace(config, **sizes), seed=1).eval(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompt") / "reviews.csv"
    rows = [f"the {noun} {number},{LABELS[number % 2]},{noun}" for number in range(12) for noun in ("cat", "mat")]
    file.write_text("text,label,noun\n" + "\n".join(rows) + "\n")
    return file


def test_a_template_names_the_fields_of_the_data() -> None:
    template = PromptTemplate.parse("{{A}} {text}: {label}!")
    assert template.whole({"text": "b"}, "c") == "{A} b: c!"
    assert template.before_label({"text": "b"}) == "{A} b: "
    with pytest.raises(UnknownName, match=r"the template has \{txt\}.*did you mean 'text'"):
        PromptTemplate.parse("{txt} {label}").check(["text", "noun"])
    with pytest.raises(BadInput, match=r"has \{label\} 0 times"):
        PromptTemplate.parse("{text}")
    with pytest.raises(BadInput, match="is not a valid text with"):
        PromptTemplate.parse("{text {label}")
    with pytest.raises(BadInput, match="neither a file nor a text"):
        PromptTemplate.open("missing.txt")


def test_answers_are_the_likeliest_candidates_after_the_whole_prompt() -> None:
    made = opened()
    maker = PromptMaker(made.model, made.tokenizer, PromptTemplate.parse("{text} is {label}"))
    rows = [PromptExample({"text": f"the {noun}"}, LABELS, 0) for noun in ("cat", "dog", "mat")]
    shots = [PromptExample({"text": "a dog"}, LABELS, 1)]
    assert maker.text(shots, rows[0]) == "a dog is bad\n\nthe cat is "
    answers = LikelihoodAnswers(maker, ContinuationScorer(made.model))
    together = answers.scores(shots, rows)
    for row, scores in zip(rows, together, strict=True):
        np.testing.assert_allclose(scores, answers.scores(shots, [row])[0], atol=1e-4)
    # Zhao et al. 2021: probabilities after "N/A", "" and "[MASK]", averaged, divide those after a row.
    inputs = [content_free(rows[0], text) for text in ("N/A", "", "[MASK]")]
    mean = np.mean([softmax(each) for each in answers.scores(shots, inputs)], axis=0)
    bias = answers.label_bias(shots, rows[0])
    np.testing.assert_allclose(np.exp(bias), mean, atol=1e-6)
    for answer, scores in zip(choose(together, bias), together, strict=True):
        assert answer.chosen == int((softmax(scores) / mean).argmax())


@pytest.mark.parametrize("config", [TINY_CLEAR, TINY_LSTM, TINY_NGRAM], ids=lambda each: each.family)
def test_a_curve_of_any_family_with_its_baselines(config: Any, reviews: Path, tmp_path: Path) -> None:
    report = clearstory.prompt(
        opened(config),
        "{text} {noun} {label}",
        reviews,
        shots=(0, 1, 2),
        draws=3,
        labels="good=on,bad=the",
        test="0.25",
        calibrate=True,
        out=tmp_path / "out",
    )
    assert [(each.answers, each.shots, each.draws) for each in report.means] == [
        *(("likelihood", shots, 3 if shots else 1) for shots in (0, 1, 2)),
        *(("calibrated", shots, 3 if shots else 1) for shots in (0, 1, 2)),
    ]
    assert (report.rows, report.chance) == (6, 0.5)
    assert report.means[0].interval is None
    assert len(report.verdicts) == 2
    for verdict, answers in zip(report.verdicts, ("likelihood", "calibrated"), strict=True):
        best = max((each for each in report.means if each.answers == answers), key=lambda each: each.mean)
        assert verdict.endswith("one draw, no interval") == (best.interval is None), "no claim without an interval"
    assert report.prompt.count("\n\n") == 2
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["means"][1]["mean"] == report.means[1].mean
    assert saved["settings"]["shots"] == [0, 1, 2]
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6 * (1 + 3 + 3) * 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page
    assert page.partition("<pre")[2].partition("</pre>")[0].count("\n\n") == 2


def test_draws_are_nested_and_follow_the_seed(reviews: Path) -> None:
    settings: dict[str, Any] = {"draws": 1, "test": "0.25"}
    model = open_model(GOLDEN / "ngram")
    prompts = [
        clearstory.prompt(model, "{text} {label}", reviews, shots=(count,), seed=seed, **settings).prompt
        for seed, count in ((1, 2), (1, 4), (1, 4), (2, 4))
    ]
    shown = [each.split("\n\n")[:-1] for each in prompts]
    assert shown[1][:2] == shown[0]
    assert shown[1] == shown[2]
    assert shown[1] != shown[3]


def test_questions_with_choices_of_their_own(tmp_path: Path) -> None:
    rows = [{"question": f"q{number}", "choices": ["a b", "c"], "answer": number % 2} for number in range(10)]
    file, test = tmp_path / "quiz.jsonl", tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text("".join(json.dumps(row | {"question": f"t{at}"}) + "\n" for at, row in enumerate(rows)))
    model = opened()
    report = clearstory.prompt(
        model, "{question}\n{choices}\n{label}", file, shots=(0, 1), draws=2, test=test, normalize="characters"
    )
    assert (report.rows, report.chance, report.majority) == (10, 0.5, None)
    assert "A. a b\nB. c\n" in report.prompt
    generated = clearstory.prompt(model, "{text} {label}", file, shots=(1,), draws=1, answer="generate", max_tokens=3)
    assert generated.means[0].answers == "generated"


def test_a_chat_template_makes_turns_of_examples(reviews: Path) -> None:
    model = opened(chat_template=TEMPLATE)
    settings: dict[str, Any] = {"shots": (1,), "draws": 1, "limit": 2}
    report = clearstory.prompt(model, "{text} {label}", reviews, system="Be short.", **settings)
    assert report.prompt.startswith("<system>Be short.\n<user>the ")
    assert report.prompt.count("<user>") == 2
    assert report.prompt.endswith("<bot>")
    raw = clearstory.prompt(model, "{text} {label}", reviews, raw=True, **settings)
    assert "<user>" not in raw.prompt


def test_what_cannot_be_asked_is_told_with_the_way_out(reviews: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    def last(*words: Any) -> str:
        answer = cli("prompt", GOLDEN / "GPT2LMHeadModel", "--examples", reviews, *words)
        assert answer.status
        return str(answer.last)

    usual = ("--template", "{text} {label}")
    assert "which is not in the data; did you mean 'noun'?" in last("--template", "{nown} {label}")
    assert "no label 'god' in the data; did you mean 'good'?" in last(*usual, "--labels", "god=yes")
    assert "the word 'x' for two labels" in last(*usual, "--labels", "good=x,bad=x")
    assert "and reviews.csv" not in last(*usual, "--shots", "99")
    assert "99 examples are needed" in last(*usual, "--shots", "99")
    assert "calibrate is for answers by likelihood" in last(*usual, "--calibrate", "--answer", "generate")
    long = tmp_path / "long.csv"
    long.write_text("text,label\n" + "".join(f"{'the cat ' * 60}{at},{LABELS[at % 2]}\n" for at in range(20)))
    found = last(*usual, "--examples", long, "--shots", "8", "--draws", "1")
    assert "8 examples make a prompt of" in found
    assert "the model's context holds" in found
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    assert "exists already" in last(*usual, "--shots", "0", "--out", tmp_path / "out")


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    rows = [f"x{at},y{at},{at % 2},z" for at in range(10)]
    file = tmp_path / "odd.csv"
    file.write_text("a,b,c,d\n" + "\n".join(rows) + "\n")
    columns = {"text_column": "a", "pair_column": "b", "label_column": "c"}
    report = clearstory.prompt(opened(), "{text}{pair}{d}{label}", file, shots=(1,), draws=1, test="0.2", **columns)  # type: ignore[arg-type]
    assert report.prompt[0] == "x"
    assert "z" in report.prompt


def test_the_command_shows_a_prompt(reviews: Path, cli: Callable[..., Any]) -> None:
    words = ("--examples", reviews, "--template", "{text}={label}", "--shots", "0,1", "--draws", "1", "--test", "0.25")
    answer = cli("prompt", GOLDEN / "ngram", *words, "--separator", " ; ", "--show-prompt", "2", "--device", "cpu")
    assert answer.status == 0, answer.err
    assert " ; the " in answer.out
    assert "likelihood, 1 examples: accuracy" in answer.out
    assert "chance 0.500" in answer.out
