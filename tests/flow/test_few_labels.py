"""Few labels: contrastive fine-tuning, and the curve of scores against the number of labels."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clearstory
from clearstory.errors import BadInput, BadSetting, CheckpointMismatch, ClearstoryError, UnknownName
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.heads import SequenceClassifier
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.finetuning.curve_report import CurvePoint, CurveSummary, efficiency_curve
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import CurvePointScored, Evaluated, ModelSaved, TrainingNote, TrainingResult
from clearstory.tasks.classify import Classify
from clearstory.tasks.contrastive import ClassBatches, contrastive
from clearstory.tasks.data.examples import LabeledData, LabeledText
from clearstory.tasks.data.splits import draw_examples
from clearstory.tasks.linear_head import INVERSE_PENALTY, fit_linear
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint

Cli = Callable[..., Any]

THINGS = ("film", "song", "book", "meal", "walk", "game", "trip", "play")
WORDS = {"good": ("good", "fine", "great"), "bad": ("bad", "poor", "awful"), "odd": ("odd", "strange", "queer")}
TRAINING = {"precision": "fp32", "threads": 1, "device": "cpu", "learning_rate": 5e-3}


def texts(count: int, labels: tuple[str, ...] = ("good", "bad"), seed: int = 0) -> list[tuple[str, str]]:
    """Different texts with labels in turn; one of the words of each says which."""
    draw, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        label = labels[len(found) % len(labels)]
        words = [draw.choice(THINGS) for _ in range(draw.randint(3, 8))]
        words[draw.randrange(len(words))] = draw.choice(WORDS[label])
        found[" ".join(words)] = label
    return list(found.items())


def table(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    path.write_text("\n".join(["text\tlabel", *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder, and files of labeled texts; no test changes them."""
    home = tmp_path_factory.mktemp("few")
    table(home / "train.tsv", texts(120))
    table(home / "dev.tsv", texts(60, seed=1))
    tokenizer = train_tokenizer("wordpiece:80", [text for text, _ in texts(120)])
    config = replace(
        MINILM, vocab=tokenizer.vocab, context=24, width=16, layers=2, heads=2, kv_heads=2, head_dim=8,
        intermediate_size=32,
    )  # fmt: skip
    save_model(home / "bert", build(config, seed=3), tokenizer, ModelCard(name="bert", family="bert", parameters=0))
    return home


def recipe(home: Path, out: Path, training: dict[str, Any] | None = None, **more: Any) -> FinetuneRecipe:
    values = {"model": str(home / "bert"), "data": (str(home / "train.tsv"),), "validation": str(home / "dev.tsv")}
    return build_settings(FinetuneRecipe, {**values, "out": out, "training": {**TRAINING, **(training or {})}, **more})


def run(recipe: FinetuneRecipe) -> tuple[list[Any], TrainingResult]:
    events = list(finetune_events(recipe))
    assert isinstance(events[-1], TrainingResult)
    return events, events[-1]


def test_the_head_is_the_regression_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    vectors = rng.normal(size=(90, 5)) + targets[:, None] / 2
    expected = linear.LogisticRegression(C=INVERSE_PENALTY, tol=1e-8, max_iter=5000).fit(vectors, targets)
    weight, bias = fit_linear(torch.tensor(vectors), torch.tensor(targets), 3, "single_label_classification")
    assert weight.numpy() == pytest.approx(expected.coef_, abs=1e-3)
    assert (bias - bias.mean()).numpy() == pytest.approx(expected.intercept_ - expected.intercept_.mean(), abs=1e-3)
    weight, bias = fit_linear(torch.tensor(vectors), torch.tensor(targets)[:, None].double(), 1, "regression")
    ridge = linear.Ridge(alpha=1 / INVERSE_PENALTY).fit(vectors, targets)
    assert weight[0].numpy() == pytest.approx(ridge.coef_, abs=1e-4)
    assert float(bias) == pytest.approx(float(ridge.intercept_), abs=1e-4)


def test_draws_are_stratified_and_nested() -> None:
    examples = tuple(LabeledText(str(n), labels=("rare" if n % 10 == 0 else "often",)) for n in range(100))
    data = LabeledData(examples, ("often", "rare"))
    draws = [draw_examples(data, n, seed=3).examples for n in (2, 5, 20, 100)]
    counts = [Counter(each.labels[0] for each in draw) for draw in draws]
    assert counts[0] == {"often": 1, "rare": 1}
    assert counts[2] == {"often": 18, "rare": 2}
    assert all(set(small) <= set(large) for small, large in pairwise(draws))
    assert draws[2] != draw_examples(data, 20, seed=4).examples
    with pytest.raises(BadSetting, match=r"101 .* has 100"):
        draw_examples(data, 101)


def test_all_pairs_of_a_batch_are_trained(home: Path) -> None:
    opened = open_model(home / "bert")
    windows = TextWindows.of_model(opened.model, opened.tokenizer)
    task = contrastive(Classify(("good", "bad"), "single_label_classification", windows))
    rows = task.encode([LabeledText(text, labels=(label,)) for text, label in texts(12)])
    batches = ClassBatches(rows, 8, 0, task)
    assert batches.batches_per_epoch == 2
    batch = batches.batch(0)
    assert sorted(batch.targets.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
    seen = [ids for index in range(2) for ids in batches.batch(index).tokens.ids.tolist()]
    assert len(seen) == 12
    assert task.count_targets(batch) == {"similar": 12, "different": 16}
    model = task.build_model(opened.model)
    assert isinstance(model, SequenceClassifier)
    unit = torch.nn.functional.normalize(model.features(batch.tokens), dim=-1)
    cosines = (unit @ unit.T).detach()
    similar = sum(
        float((1 - cosines[i, j]) ** 2) for i in range(8) for j in range(i) if batch.targets[i] == batch.targets[j]
    )
    assert float(task.loss(model, batch)["similar"].total.detach()) == pytest.approx(similar, rel=1e-4)


def test_few_labels_are_learned_and_the_folder_answers(cli: Cli, home: Path, tmp_path: Path) -> None:
    result = clearstory.finetune(
        home / "bert", home / "train.tsv", few=8, validation=home / "dev.tsv", out=tmp_path / "run",
        training={**TRAINING, "num_train_epochs": 20},  # type: ignore[typeddict-item]
    )  # fmt: skip
    assert result.metrics["accuracy"] > 0.7
    assert result.runs[0].steps == 20
    answers = clearstory.classify(tmp_path / "run", [text for text, _ in texts(60, seed=1)])
    right = [answer.labels[0].label == label for answer, (_, label) in zip(answers, texts(60, seed=1), strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])
    evaluated = json.loads(cli("evaluate", tmp_path / "run", home / "dev.tsv", "--task", "classify", "--json").out)
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]
    assert evaluated["loss"] == pytest.approx(report["loss"], rel=1e-4)
    assert open_model(tmp_path / "run").model.config.pooling == "mean"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Confusion matrix" in page
    assert "16 training examples" in page
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]


def test_each_seed_draws_anew(home: Path, tmp_path: Path) -> None:
    values = recipe(home, tmp_path / "run", few=2, steps=1)
    found = []
    for seed in (0, 1):
        training = replace(values.training, seed=seed)
        run(replace(values, training=training, out=tmp_path / str(seed)))
        found.append(json.loads((tmp_path / str(seed) / "environment.json").read_text())["corpus"])
    assert found[0] != found[1]
    baseline = clearstory.finetune(
        "tfidf", home / "train.tsv", few=2, validation=str(home / "dev.tsv"), out=tmp_path / "words"
    )
    assert 0 <= baseline.metrics["accuracy"] <= 1


def finished(folder: Path) -> dict[str, torch.Tensor]:
    last = checkpoint.load_checkpoint(checkpoint.list_checkpoints(folder)[-1])
    return last.model | last.optimizer


def test_a_resumed_run_ends_as_an_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    whole = recipe(home, tmp_path / "whole", few=4, steps=6, training={"save_steps": 2, "batch_size": 4})
    events, result = run(whole)
    assert len([each for each in events if isinstance(each, Evaluated)]) == 1
    part = replace(whole, out=tmp_path / "part")
    for event in finetune_events(part):
        if isinstance(event, ModelSaved) and event.kind == "checkpoint" and event.step == 4:
            break
    _, resumed = run(replace(part, resume=True))
    one, other = finished(tmp_path / "whole"), finished(tmp_path / "part")
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert resumed.metrics == result.metrics


def test_several_labels_of_a_text(home: Path, tmp_path: Path) -> None:
    rows = [(text, ",".join([label] + ["film"] * ("film" in text))) for text, label in texts(120)]
    values = recipe(home, tmp_path / "run", few=4, problem="multi", validation="0.1", steps=3)
    _, result = run(replace(values, data=(str(table(tmp_path / "several.tsv", rows)),)))
    assert set(result.metrics) == {"macro_f1", "micro_f1", "accuracy"}


def test_a_curve_is_scored_and_continues(home: Path, tmp_path: Path) -> None:
    values = recipe(home, tmp_path / "run", curve=(20, 8), seeds=2, steps=2, baselines=("frozen", "tfidf", "bert-tiny"))
    part = replace(values, out=tmp_path / "part")
    events, result = run(values)
    points = [each for each in events if isinstance(each, CurvePointScored)]
    assert [(each.labels, each.seed) for each in points] == [(8, 0), (20, 0), (8, 1), (20, 1)]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {each["model"] for each in report["curve"]} == {"fine-tuned", "frozen", "tfidf", "bert-tiny"}
    assert len(report["points"]) == 16
    assert len(report["claims"]) == 3
    last = next(each for each in report["curve"] if (each["model"], each["labels"]) == ("fine-tuned", 20))
    drawn = [each["metrics"]["accuracy"] for each in report["points"]
             if (each["model"], each["labels"]) == ("fine-tuned", 20)]  # fmt: skip
    assert last["means"]["accuracy"] == result.metrics["accuracy"] == pytest.approx(np.mean(drawn))
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()
    assert any(isinstance(event, CurvePointScored) for event in finetune_events(part))  # and no further
    before = json.loads((tmp_path / "part" / "report.json").read_text())["points"]
    assert len(before) == 4
    run(replace(part, resume=True))
    after = json.loads((tmp_path / "part" / "report.json").read_text())
    assert after["points"][:4] == before  # with their CPU seconds: they were not repeated
    assert [each["metrics"] for each in after["points"]] == [each["metrics"] for each in report["points"]]
    with pytest.raises(CheckpointMismatch, match="curve"):
        run(replace(part, resume=True, curve=(8,)))


def test_thresholds_of_a_curve_are_fitted_to_other_examples(home: Path, tmp_path: Path) -> None:
    def several(name: str, seed: int) -> str:
        rows = [(text, ",".join([label] + ["film"] * ("film" in text))) for text, label in texts(60, seed=seed)]
        return str(table(tmp_path / name, rows))

    values = recipe(home, tmp_path / "run", curve=(20,), seeds=1, steps=2, baselines=("frozen", "tfidf"))
    files = {"data": (several("train.tsv", 0),), "validation": (several("dev.tsv", 1),)}
    values = replace(values, reading=replace(values.reading, problem="multi"), **files)
    events, result = run(values)
    sentence = "above a probability of 0.5"
    assert any(isinstance(each, TrainingNote) and sentence in each.message for each in events)
    assert sentence in json.loads((tmp_path / "run" / "report.json").read_text())["scored_on"]
    with_test = replace(values, test=files["validation"], out=tmp_path / "test")
    events, fitted = run(with_test)
    assert not any(isinstance(each, TrainingNote) and sentence in each.message for each in events)
    assert fitted.metrics["macro_f1"] >= result.metrics["macro_f1"]  # fitted to the same texts


def test_numbers_on_the_command_line(cli: Cli, home: Path, tmp_path: Path) -> None:
    answer = cli(
        "finetune", home / "bert", home / "train.tsv", "--validation", home / "dev.tsv", "--curve", "8", "16",
        "--baselines", "frozen", "--steps", "2", "--training.threads", "1", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert answer.status == 0
    found = json.loads(answer.out)
    assert found["metrics"]["accuracy"] == found["runs"][0]["metrics"]["accuracy"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [(each["model"], each["labels"]) for each in report["points"]] == [
        ("fine-tuned", 8), ("frozen", 8), ("fine-tuned", 16), ("frozen", 16),
    ]  # fmt: skip


def test_the_claim_is_a_number() -> None:
    names = ("fine-tuned", "tfidf", "bert-tiny")
    points = [
        CurvePoint(model, labels, seed, {"accuracy": score + (0.01, -0.01)[seed]}, 0, 1.0)
        for model, scores in zip(names, ((0.5, 0.7, 0.9), (0.5, 0.5, 0.8), (0.4, 0.4, 0.5)), strict=True)
        for labels, score in zip((10, 100, 1000), scores, strict=True)
        for seed in (0, 1)
    ]  # fmt: skip
    summary = CurveSummary.of(points, names)
    assert summary.labels_for("fine-tuned", 0.8) == pytest.approx(10**2.5)
    assert summary.claims == [
        "With about 320 labels the fine-tuned model reaches accuracy 0.800, which tfidf reaches with 1,000: 3.2 times "
        "as many.",
        "With only 10 labels the fine-tuned model reaches accuracy 0.500, which bert-tiny reaches with 1,000: 100 "
        "times as many.",
    ]
    reversed_summary = replace(summary, models=("fine-tuned", "best"), means=(
        *summary.of_model("fine-tuned"), replace(summary.last("fine-tuned"), model="best", means={"accuracy": 0.95})
    ))  # fmt: skip
    assert "more than the fine-tuned model with any number of labels (0.900)" in reversed_summary.claims[0]
    view = efficiency_curve(summary)
    assert view.log_x
    assert [line.name for line in view.lines if line.same_color_as is None] == list(names)
    low, high = summary.last("tfidf").intervals["accuracy"]
    assert (high - low) / 2 == pytest.approx(12.706 * 0.01)


def test_bad_input_is_one_sentence(home: Path, tmp_path: Path) -> None:
    def refused(error: type[ClearstoryError], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            run(recipe(home, tmp_path / "refused", **changes))
        assert not list((tmp_path / "refused").glob("[a-z]*"))

    refused(BadInput, r"60 examples of the label 'bad', fewer than 99", few=99)
    refused(BadSetting, "few is 8 and problem regression", few=8, problem="regression")
    refused(BadSetting, "few is 8 and curve 8 16", few=8, curve=(8, 16))
    refused(BadSetting, "few is 8 and task tag", few=8, task="tag")
    refused(BadSetting, "few is 8 and freeze all", few=8, freeze="all")
    refused(BadSetting, "few is 0", few=0)
    refused(BadSetting, r"training.label_smoothing does not apply with few", few=8, training={"label_smoothing": 0.1})
    refused(BadSetting, r"curve has 5,000 labels.* 120 examples", curve=(8, 5000))
    refused(BadSetting, r"curve has 1 labels.* 2 different ones", curve=(1, 8))
    refused(BadSetting, "different numbers", curve=(8, 8))
    refused(BadSetting, "minutes does not apply with curve", curve=(8,), minutes=1.0)
    refused(BadSetting, "no examples to evaluate on", curve=(8,), validation=("0",))
    refused(UnknownName, "baselines names 'frozn'.*frozen", curve=(8,), baselines=("frozn",))
    refused(BadSetting, "there is no curve", baselines=("tfidf",))
    refused(BadSetting, "vectors are random", model="bert-tiny", curve=(8,))
    one = table(tmp_path / "one.tsv", [(text, "good") for text, _ in texts(20)])
    for more in ({"few": 2}, {"curve": (8,)}):
        refused(BadInput, "good", data=(str(one),), validation=("0.1",), **more)
    numbers = table(tmp_path / "numbers.tsv", [(text, str(n / 7)) for n, (text, _) in enumerate(texts(30))])
    refused(BadSetting, "few is for labels", data=(str(numbers),), validation=("0.1",), few=2)


def test_few_labels_with_adapters(home: Path, tmp_path: Path) -> None:
    _, result = run(recipe(home, tmp_path / "run", few=4, steps=3, lora={"rank": 2}))
    assert (tmp_path / "run" / "model" / "adapter_config.json").is_file()
    answers = clearstory.classify(tmp_path / "run", [text for text, _ in texts(60, seed=1)])
    right = [answer.labels[0].label == label for answer, (_, label) in zip(answers, texts(60, seed=1), strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])
