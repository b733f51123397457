"""Baselines without a network: their probabilities are scikit-learn's and those of Bayes' rule, also when reopened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo
from clearstory.formats.folders import open_model
from clearstory.models.base import TokenBatch

Cli = Callable[..., Any]

ROWS = [
    (f"{start} {noun}, {word}!", label)
    for label, words in (("bad", ("poor", "awful")), ("good", ("fine", "GREAT")), ("odd", ("strange", "weird")))
    for word in words
    for noun in ("Film", "song", "the book", "a Meal")
    for start in ("What a", "This is my", "Such")
]
NEW = ["A fine FILM .", "weird weird weird song", "nothing known here", "the the book , poor !"]


def write(path: Path, rows: list[tuple[Any, ...]], header: str = "text\tlabel") -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def probabilities(folder: Path, texts: list[str]) -> Any:
    answers = clearstory.classify(folder, texts)
    return np.array([[each.probability for each in sorted(a.labels, key=lambda e: e.label)] for a in answers])


@pytest.mark.parametrize("labels", [2, 3])
def test_the_bag_of_words_is_that_of_scikit_learn(labels: int, tmp_path: Path) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    rows = [row for row in ROWS if row[1] in ("bad", "good", "odd")[:labels]]
    clearstory.finetune("tfidf", write(tmp_path / "rows.tsv", rows), validation=0, out=tmp_path / "run")
    words = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    model = linear.LogisticRegression(C=10.0, max_iter=1000)
    model.fit(words.fit_transform([row[0] for row in rows]), [row[1] for row in rows])
    expected = model.predict_proba(words.transform(NEW))
    np.testing.assert_allclose(probabilities(tmp_path / "run", NEW), expected, atol=1e-6)
    assert {each.suffix for each in (tmp_path / "run" / "model").iterdir()} == {".json", ".safetensors", ".md"}


def test_several_labels_and_numbers_are_scikit_learns(tmp_path: Path) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    words = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    x = words.fit_transform([row[0] for row in ROWS])
    values = [len(row[0]) + 0.5 for row in ROWS]
    numbers = write(tmp_path / "numbers.tsv", [(row[0], each) for row, each in zip(ROWS, values, strict=True)])
    clearstory.finetune("tfidf", numbers, problem="regression", validation=0, out=tmp_path / "numbers")
    expected = linear.Ridge(alpha=1.0).fit(x, values).predict(words.transform(NEW))
    np.testing.assert_allclose(probabilities(tmp_path / "numbers", NEW)[:, 0], expected, atol=1e-6)
    several = [(row[0], f"{row[1]},long" if len(row[0]) > 20 else row[1]) for row in ROWS]
    clearstory.finetune("tfidf", write(tmp_path / "s.tsv", several), problem="multi", validation=0, out=tmp_path / "s")
    names = ("bad", "good", "long", "odd")
    for at, name in enumerate(names):
        model = linear.LogisticRegression(C=10.0, max_iter=1000).fit(x, [name in row[1].split(",") for row in several])
        expected = model.predict_proba(words.transform(NEW))[:, 1]
        np.testing.assert_allclose(probabilities(tmp_path / "s", NEW)[:, at], expected, atol=1e-6)


def test_ngram_models_of_each_label_are_joined_by_bayes_rule(tmp_path: Path) -> None:
    rows = ROWS[:30]  # 24 bad ones and 6 good ones
    data = write(tmp_path / "rows.tsv", rows)
    clearstory.finetune("ngram", data, tokenizer="characters", validation=0, out=tmp_path / "run")
    opened = open_model(tmp_path / "run")
    assert opened.model.config.configs[0].smoothing == "kneser-ney"
    edge = opened.model.boundary
    for text, found in zip(NEW, probabilities(tmp_path / "run", NEW), strict=True):
        ids = opened.tokenizer.encode(text)  # type: ignore[union-attr]
        logs = []
        for share, model in zip((24 / 30, 6 / 30), opened.model.models, strict=True):
            hidden, _ = model.forward(TokenBatch.from_sequences([[edge, *ids]]))
            scores = model.logits(hidden)[0].double()
            logs.append(np.log(share) + sum(float(row[id]) for row, id in zip(scores, [*ids, edge], strict=True)))
        expected = np.exp(logs - np.logaddexp(*logs))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_saved_baseline_is_evaluated_and_refuses_the_rest(cli: Cli, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.tsv", ROWS)
    clearstory.finetune("ngram", data, validation=0.2, out=tmp_path / "run")
    answer = cli("evaluate", tmp_path / "run", data, "--task", "classify", "--json")
    assert json.loads(answer.out)["metrics"]["accuracy"] > 0.5
    for words, says in (
        (("evaluate", tmp_path / "run", data, "--data.lines"), "does not predict the next token"),
        (("generate", tmp_path / "run", "What"), "does not generate text"),
        (("embed", tmp_path / "run", "What"), "has no sentence vectors"),
        (("convert", tmp_path / "run", tmp_path / "x.gguf"), "GGUF has no"),
        (("convert", tmp_path / "run", tmp_path / "x", "--to", "onnx"), "cannot be exported to ONNX"),
        (("finetune", tmp_path / "run", data), "is a baseline"),
    ):
        refused = cli(*words)
        assert refused.status == 1, words
        assert says in refused.err
        assert len(refused.err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_the_threshold_of_several_labels_is_fitted_and_kept(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("sklearn.linear_model")
    rows = [(text, f"{label},long" if len(text) > 16 else label) for text, label in ROWS]
    data, out = write(tmp_path / "rows.tsv", rows), tmp_path / "run"
    dev = write(tmp_path / "dev.tsv", [(f"{text} So, so", label) for text, label in rows])
    answer = cli("finetune", "tfidf", data, "--problem", "multi", "--validation", dev, "--out", out, "--json")
    assert answer.status == 0, answer.err
    assert "text from 'text'" in answer.err
    assert "warning" not in answer.err
    config = open_model(out).model.config
    scores = {}
    for threshold in {0.1, 0.3, 0.5, 0.7, config.threshold}:
        clearstory.finetune("tfidf", data, problem="multi", validation=dev, threshold=threshold, out=tmp_path / "given",
                            overwrite=True)  # fmt: skip
        scores[threshold] = json.loads((tmp_path / "given" / "report.json").read_text())["validation"]["metrics"]
    best = max(each["macro_f1"] for each in scores.values())
    assert scores[config.threshold]["macro_f1"] == best
    assert clearstory.evaluate(out, dev, task="classify").metrics["macro_f1"] == pytest.approx(best)
    page = (out / "model" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in page
    assert "clearstory classify FOLDER" in page


def test_what_a_baseline_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.tsv", ROWS)
    several = write(tmp_path / "several.tsv", [(text, f"{label},all") for text, label in ROWS])
    with pytest.raises(CannotDo, match="ngram is for texts with one label each"):
        clearstory.finetune("ngram", several, problem="multi", out=tmp_path / "run")
    with pytest.raises(BadSetting, match="steps does not apply to ngram, which counts n-grams"):
        clearstory.finetune("ngram", data, steps=3, out=tmp_path / "run")
    with pytest.raises(BadSetting, match=r"task is tag, and ngram, .* is for task classify; of task tag .* is hmm"):
        clearstory.finetune("ngram", data, task="tag", out=tmp_path / "run")
    with pytest.raises(BadSetting, match=r"task is classify, and hmm, .*; of task classify .* is tfidf or ngram"):
        clearstory.finetune("hmm", data, out=tmp_path / "run")
    with pytest.raises(BadSetting, match="tokenizer does not apply to tfidf"):
        clearstory.finetune("tfidf", data, tokenizer="words", out=tmp_path / "run")
    one = write(tmp_path / "one.tsv", [(text, "good") for text, _ in ROWS])
    with pytest.raises(BadInput, match="have the label 'good'"):
        clearstory.finetune("ngram", one, out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("[a-z]*"))
