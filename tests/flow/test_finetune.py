"""Fine-tuning end to end: every backbone learns labels of texts, and its folder answers."""

from __future__ import annotations

import json
import math
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import TINY_CLEAR, TINY_GPT2, TINY_LSTM

import clearstory
from clearstory.errors import BadInput, BadSetting, CheckpointMismatch, ClearstoryError, ContextOverflow
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.lora import lora_layers
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.finetuning.preparation import FinetuningPreparation
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.finetuning_steps import SHARED_TRAINING_SETTINGS, FinetuneTrainingSettings
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import Evaluated, ModelSaved, StepCompleted, TrainingResult
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training import checkpoint
from clearstory.training.metrics_log import read_metrics

Cli = Callable[..., Any]

THINGS = ("film", "song", "book", "meal", "walk", "game", "trip", "play")
GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
SMALL = {
    "num_train_epochs": 4,
    "learning_rate": 5e-3,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
    "eval_steps": 8,
}


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts, one of whose words says whether they are good or bad; no two are equal."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        label = draw.choice(("good", "bad"))
        words = [draw.choice(THINGS) for _ in range(draw.randint(2, 9))]
        words[draw.randrange(len(words))] = draw.choice(GOOD if label == "good" else BAD)
        found[" ".join(words)] = label
    return list(found.items())


def table(path: Path, rows: list[tuple[Any, ...]], header: str = "text\tlabel") -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


BACKBONES = {
    "bert": replace(
        MINILM, pooler=True, context=24, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32
    ),
    "gpt2": TINY_GPT2,
    "clear": TINY_CLEAR,
    "lstm": TINY_LSTM,
    "gru": replace(TINY_LSTM, cell="gru"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each backbone, and a file of labeled texts; no test changes them."""
    home = tmp_path_factory.mktemp("labeled")
    table(home / "train.tsv", texts(160))
    table(home / "dev.tsv", texts(60, seed=1))
    lines = [text for text, _ in texts(160)]
    for name, config in BACKBONES.items():
        tokenizer = train_tokenizer("wordpiece:80" if name == "bert" else "words", lines)
        model = build(replace(config, vocab=tokenizer.vocab), seed=3)
        save_model(home / name, model, tokenizer, ModelCard(name=name, family=config.family, parameters=0))
    return home


def recipe(home: Path, out: Path, model: str = "bert", training: dict[str, Any] | None = None, **more: Any) -> Any:
    values = {"model": str(home / model), "data": (str(home / "train.tsv"),), "out": out, **more}
    return build_settings(FinetuneRecipe, {**values, "training": {**SMALL, **(training or {})}})


def run(recipe: FinetuneRecipe) -> tuple[list[Any], TrainingResult]:
    events = list(finetune_events(recipe))
    assert isinstance(events[-1], TrainingResult)
    return events, events[-1]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("clear", "gru") else name for name in BACKBONES]
)
def test_every_backbone_learns_and_answers(name: str, home: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "train.tsv", texts(160))
    result = clearstory.finetune(
        home / name,
        data,
        validation=home / "dev.tsv",
        out=tmp_path / "run",
        training={**SMALL, "num_train_epochs": 12, "learning_rate": 2e-2 if name in ("lstm", "gru") else 5e-3},  # type: ignore[typeddict-item]
    )
    assert result.metrics["accuracy"] > 0.85
    answers = clearstory.classify(tmp_path / "run", [text for text, _ in texts(60, seed=1)])
    right = [answer.labels[0].label == label for answer, (_, label) in zip(answers, texts(60, seed=1), strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])
    assert sum(each.probability for each in answers[0].labels) == pytest.approx(1)
    saved = open_model(result.folder).model
    assert saved.config.labels == ("bad", "good")


def test_metrics_intervals_and_report(home: Path, tmp_path: Path) -> None:
    events, result = run(recipe(home, tmp_path / "run", validation=str(home / "dev.tsv"), test=str(home / "dev.tsv")))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["validation"]["metrics"] == pytest.approx(dict(result.metrics))
    assert report["test"]["metrics"] == report["validation"]["metrics"]
    low, high = result.intervals["accuracy"]
    assert low <= result.metrics["accuracy"] <= high
    assert np.array(report["test"]["details"]["confusion"]).sum() == 60
    assert [each["label"] for each in report["test"]["details"]["labels"]] == ["bad", "good"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(word in page for word in ("macro F1", "Confusion matrix", "Calibration", "<svg"))
    mistakes = report["test"]["details"]["mistakes"]
    assert len(mistakes) == min(20, round(60 * (1 - report["test"]["metrics"]["accuracy"])))
    assert all(each["label"] != each["predicted"] and "dev.tsv" in each["location"] for each in mistakes)
    logged = [each for each in read_metrics(tmp_path / "run" / "metrics.jsonl") if each["kind"] == "evaluation"]
    evaluated = [each for each in events if isinstance(each, Evaluated)]
    assert [each["accuracy"] for each in logged] == [each.metrics["accuracy"] for each in evaluated]
    best = max(each.metrics["accuracy"] for each in evaluated)
    assert result.metrics["accuracy"] == pytest.approx(best)  # the best model by the metric is kept


def finished(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The last checkpoint's tensors and the log without times."""
    last = checkpoint.load_checkpoint(checkpoint.list_checkpoints(folder)[-1])
    log = [
        {key: value for key, value in each.items() if "seconds" not in key}
        for each in read_metrics(folder / "metrics.jsonl")
    ]
    return last.model | last.optimizer, log


def test_an_adapter_answers_as_the_run_scored_it(cli: Cli, home: Path, tmp_path: Path) -> None:
    _, result = run(recipe(home, tmp_path / "run", lora={"rank": 2}, validation=str(home / "dev.tsv")))
    assert (tmp_path / "run" / "model" / "adapter_config.json").is_file()
    answer = cli("evaluate", tmp_path / "run", home / "dev.tsv", "--task", "classify", "--json")
    assert json.loads(answer.out)["loss"] == pytest.approx(result.nats_per_token, rel=1e-4)


@pytest.mark.parametrize("how", ["all", "lora", "freeze"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(how: str, home: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"all": {}, "lora": {"lora": {"rank": 2, "dropout": 0.1}}, "freeze": {"freeze": "1"}}[how]
    training = {"gradient_accumulation_steps": 2, "batch_size": 8, "layer_decay": 0.9 if how == "all" else 1.0}
    training |= {"num_train_epochs": 1, "eval_steps": 4}
    whole = recipe(home, tmp_path / "whole", training=training, **more)
    run(whole)
    part = replace(whole, out=tmp_path / "part")
    for event in finetune_events(part):
        if isinstance(event, ModelSaved) and event.kind == "checkpoint" and event.step == 4:
            break
    run(replace(part, resume=True))
    one, other = finished(tmp_path / "whole"), finished(tmp_path / "part")
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())
    assert one[1] == other[1]


def test_a_resumed_run_must_have_the_same_settings_and_data(home: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "train.tsv", texts(40))
    values = replace(recipe(home, tmp_path / "run", training={"num_train_epochs": 1}), data=(str(data),))
    run(values)
    other = replace(values, resume=True, training=replace(values.training, weight_decay=0.5))
    with pytest.raises(CheckpointMismatch, match="weight_decay"):
        run(other)
    table(data, texts(41))
    with pytest.raises(CheckpointMismatch, match="has changed"):
        run(replace(values, resume=True))


def test_accumulated_gradients_are_those_of_one_batch(home: Path, tmp_path: Path) -> None:
    losses = []
    for name, size, parts in (("one", 16, 1), ("four", 4, 4)):
        training = {"batch_size": size, "gradient_accumulation_steps": parts}
        values = recipe(home, tmp_path / name, "gpt2", training=training, steps=6)
        losses.append([event.loss for event in run(values)[0] if isinstance(event, StepCompleted)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_frozen_layers_stay_and_a_head_learns(home: Path, tmp_path: Path) -> None:
    before = open_model(home / "bert").model.state_dict()
    run(recipe(home, tmp_path / "all", freeze="all"))
    run(recipe(home, tmp_path / "one", freeze="1"))
    for name, frozen in (("all", ("embedding", "blocks.0", "blocks.1")), ("one", ("embedding.", "blocks.0"))):
        after = open_model(tmp_path / name).model.backbone.state_dict()
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert not [key for key in changed if key.startswith(frozen)]
        assert any(key.startswith("blocks.1") for key in changed) == (name == "one")


def test_training_stops_early_and_keeps_the_best(home: Path, tmp_path: Path) -> None:
    training = {"learning_rate": 1e-7, "patience": 2, "eval_steps": 1, "num_train_epochs": 9, "schedule": "constant"}
    events, result = run(recipe(home, tmp_path / "run", training=training))
    losses = [event.nats_per_token for event in events if isinstance(event, Evaluated)]
    assert result.steps < 45 or len(losses) == 45
    _, still = run(recipe(home, tmp_path / "still", training={**training, "learning_rate": 9.0, "patience": 1}))
    assert still.steps < 45


def test_seeds_are_summarized(home: Path, tmp_path: Path) -> None:
    result = clearstory.finetune(
        home / "bert",
        home / "train.tsv",
        seeds=3,
        out=tmp_path / "run",
        training={**SMALL, "num_train_epochs": 1},  # type: ignore[typeddict-item]
    )
    values = [each.metrics["accuracy"] for each in result.runs]
    assert len(values) == 3
    assert result.metrics["accuracy"] == pytest.approx(np.mean(values))
    half = 4.303 * np.std(values, ddof=1) / math.sqrt(3)
    low, high = result.intervals["accuracy"]
    assert (high - low) / 2 == pytest.approx(half)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"] == pytest.approx(dict(result.metrics))
    first, second = (open_model(tmp_path / "run" / f"seed-{n}").model.classifier.weight for n in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_several_labels_numbers_and_pairs(home: Path, tmp_path: Path) -> None:
    rows = texts(160)
    several = [(text, ",".join([label] + ["film"] * ("film" in text))) for text, label in rows]
    result = clearstory.finetune(
        home / "bert",
        table(tmp_path / "several.tsv", several),
        problem="multi",
        out=tmp_path / "several",
        training={**SMALL, "num_train_epochs": 15, "learning_rate": 1e-2},  # type: ignore[typeddict-item]
    )
    assert set(result.metrics) == {"macro_f1", "micro_f1", "accuracy"}
    assert result.metrics["macro_f1"] > 0.6
    answer = clearstory.classify(tmp_path / "several", "good film song")[0]
    assert {each.label for each in answer.labels} == {"bad", "film", "good"}

    numbers = [(text, (label == "good") + at / 1000) for at, (text, label) in enumerate(rows)]
    result = clearstory.finetune(
        home / "bert",
        table(tmp_path / "numbers.tsv", numbers, "text\tscore"),
        problem="regression",
        out=tmp_path / "numbers",
        training={**SMALL, "num_train_epochs": 15, "learning_rate": 1e-2},  # type: ignore[typeddict-item]
    )
    assert result.metrics["spearman"] > 0.5

    pairs = [(text, other, "same" if label == same else "other") for (text, label), (other, same) in pairwise(rows)]
    file = table(tmp_path / "pairs.tsv", pairs, "sentence1\tsentence2\tlabel")
    values = replace(recipe(home, tmp_path / "pairs"), data=(str(file),), truncate="right")
    assert run(values)[1].metrics.keys() == {"accuracy", "macro_f1", "mcc"}


def test_class_weights(home: Path, tmp_path: Path) -> None:
    rows = [each for each in texts(200) if each[1] == "good"][:80] + [e for e in texts(200) if e[1] == "bad"][:10]
    file = table(tmp_path / "rare.tsv", rows)
    # balanced: 90 / (2 · 10), 90 / (2 · 80); given: 8 and 1 over their mean, (8 · 10 + 1 · 80) / 90
    for weights, expected in ((("balanced",), (4.5, 0.5625)), (("8", "1"), (4.5, 0.5625)), ((), (1.0, 1.0))):
        values = replace(
            recipe(home, tmp_path / "run", training={"class_weights": weights}),
            data=(str(file),),
            validation="0",
        )
        preparation = FinetuningPreparation()
        trainer = preparation(RunFolder(tmp_path / "run"), values, TimeBudget(math.inf)).trainer
        batch, model = trainer.batches.batch(0), trainer.model.eval()
        with torch.no_grad():
            term = preparation.task.loss(model, batch)["labels"]
            nats = -model.class_logits(batch.tokens).log_softmax(-1)[range(len(batch.targets)), batch.targets]
        assert preparation.task.labels == ("bad", "good")
        assert float(term.total) == pytest.approx(float((nats * torch.tensor(expected)[batch.targets]).sum()), rel=1e-5)


def test_the_threshold_of_several_labels_is_fitted_and_saved(home: Path, tmp_path: Path) -> None:
    every = [(text, ",".join([label] + ["film"] * ("film" in text))) for text, label in texts(120)]
    train, rows = table(tmp_path / "train.tsv", every[40:]), every[:40]
    values = recipe(home, tmp_path / "run", training={"num_train_epochs": 1})
    held_out = str(table(tmp_path / "dev.tsv", rows))
    values = replace(values, data=(str(train),), validation=(held_out,), reading=LabelSettings(problem="multi"))
    _, result = run(values)
    answers = clearstory.classify(tmp_path / "run", [text for text, _ in rows])
    labels = ("bad", "film", "good")
    of_label = {
        label: np.array([{e.label: e.probability for e in a.labels}[label] for a in answers]) for label in labels
    }
    right = {label: np.array([label in names.split(",") for _, names in rows]) for label in labels}

    def macro_f1(threshold: float) -> float:
        found = []
        for label in labels:
            guessed = of_label[label] >= threshold
            found.append(2 * (guessed & right[label]).sum() / max(1, guessed.sum() + right[label].sum()))
        return float(np.mean(found))

    threshold = open_model(tmp_path / "run").model.config.threshold
    assert result.metrics["macro_f1"] == pytest.approx(macro_f1(threshold))
    assert macro_f1(threshold) == pytest.approx(max(macro_f1(step / 20) for step in range(1, 20)))
    chosen = [tuple(each.label for each in a.labels if each.probability >= threshold) for a in answers]
    assert [each.predicted for each in answers] == chosen

    preparation = FinetuningPreparation()
    untrained = preparation(RunFolder(tmp_path / "new"), values, TimeBudget(math.inf)).trainer.model
    shares = [(sum(label in names.split(",") for _, names in every[40:]) + 0.5) / 81 for label in labels]
    assert untrained.classifier.bias.sigmoid().tolist() == pytest.approx(shares)

    run(replace(values, out=tmp_path / "given", threshold="0.2"))
    assert open_model(tmp_path / "given").model.config.threshold == 0.2
    with pytest.raises(BadSetting, match=r"threshold is 0\.2, and problem_type single_label_classification"):
        run(replace(recipe(home, tmp_path / "single"), threshold="0.2"))
    with pytest.raises(BadSetting, match="threshold is '2'; give a number above 0 and under 1, or auto"):
        replace(values, threshold="2")


def test_a_fine_tuned_model_can_be_fine_tuned_again(home: Path, tmp_path: Path) -> None:
    run(recipe(home, tmp_path / "first", training={"num_train_epochs": 1}))
    again = recipe(tmp_path, tmp_path / "again", "first", training={"num_train_epochs": 1})
    again = replace(again, data=(str(home / "train.tsv"),))
    run(again)
    other = table(tmp_path / "other.tsv", [(text, {"good": "yes", "bad": "no"}[label]) for text, label in texts(40)])
    with pytest.raises(ClearstoryError, match=r"bad.*good|good.*bad"):
        run(replace(again, out=tmp_path / "third", data=(str(other),)))
    assert not (tmp_path / "third").exists() or not list((tmp_path / "third").glob("*.*"))
    run(replace(again, out=tmp_path / "third", data=(str(other),), new_head=True))
    assert open_model(tmp_path / "third").model.config.labels == ("no", "yes")


def test_a_new_model_of_a_preset(home: Path, tmp_path: Path) -> None:
    values = replace(recipe(home, tmp_path / "run", training={"num_train_epochs": 1}), model="bert-tiny")
    _, result = run(values)
    assert "bert-tiny" in (tmp_path / "run" / "config.yaml").read_text()
    assert clearstory.classify(tmp_path / "run", "a good film")[0].labels
    assert result.steps == 5


def test_bad_input_is_one_sentence(home: Path, tmp_path: Path) -> None:
    def refused(error: type[ClearstoryError], match: str, **changes: Any) -> None:
        with pytest.raises(error, match=match):
            run(replace(recipe(home, tmp_path / "refused"), **changes))
        assert not list((tmp_path / "refused").glob("[a-z]*"))

    one = table(tmp_path / "one.tsv", [(text, "good") for text, _ in texts(20)])
    refused(BadInput, "one", data=(str(one),))
    long = table(tmp_path / "long.tsv", [*texts(20), ("film " * 40 + "good", "good")])
    refused(ContextOverflow, r"long\.tsv.* line 22.* has 43 tokens .* context is 24", data=(str(long),))
    refused(ClearstoryError, "no folder", model=str(tmp_path / "nowhere"))
    refused(BadSetting, "there is no model", model="")
    refused(BadInput, r"column|label", data=(str(table(tmp_path / "c.tsv", [("a", "b")] * 3, "one\ttwo")),))
    with pytest.raises(BadSetting, match=r"class_weights has 3 numbers.*2 labels"):
        run(recipe(home, tmp_path / "refused", training={"class_weights": ("1", "2", "3")}))
    with pytest.raises(BadSetting, match="freeze is 9, and the model has 2 layers"):
        run(recipe(home, tmp_path / "refused", freeze="9"))


def test_long_texts_are_cut_or_read_in_windows(home: Path, tmp_path: Path) -> None:
    long = table(tmp_path / "long.tsv", [(f"{'film ' * 30}{text}", label) for text, label in texts(60)])
    for name, more in (("left", {"truncate": "left"}), ("strided", {"stride": 8})):
        values = replace(recipe(home, tmp_path / name, training={"num_train_epochs": 1}), data=(str(long),), **more)
        assert run(values)[1].metrics["accuracy"] >= 0


def test_the_command_prints_json(cli: Cli, home: Path, tmp_path: Path) -> None:
    answer = cli(
        "finetune", home / "bert", home / "train.tsv", "--out", tmp_path / "run", "--training.num_train_epochs", "1",
        "--training.threads", "1", "--json",
    )  # fmt: skip
    assert answer.status == 0
    found = json.loads(answer.out)
    assert found["metric"] == "accuracy"
    assert Path(found["folder"]) == tmp_path / "run" / "model"
    words = ("--training.num_train_epochs", "1", "--training.threads", "1", "--out", tmp_path / "run")
    assert cli("finetune", home / "bert", home / "train.tsv", *words).status == 1  # it is there
    assert cli("finetune", home / "bert", home / "train.tsv", *words, "--overwrite").status == 0


def test_language_modelling_is_what_train_does_with_an_initial_model(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(text for text, _ in texts(160)), encoding="utf-8")
    values = build_settings(
        FinetuneRecipe,
        {
            "model": str(home / "gpt2"), "data": (str(text),), "task": "lm", "out": tmp_path / "run", "steps": 2,
            "training": {"threads": 1, "precision": "fp32", "batch_size": 4},
        },
    )  # fmt: skip
    result = run(values)[1]
    trained = clearstory.train(
        text, init=str(home / "gpt2"), steps=2, out=tmp_path / "train",
        training={"threads": 1, "precision": "fp32", "batch_size": 4},
    )  # fmt: skip
    assert result.nats_per_token == trained.nats_per_token
    with pytest.raises(BadSetting, match="freeze does not apply to task lm"):
        run(replace(values, freeze="1"))
    shorter = run(replace(values, training=replace(values.training, context=8), out=tmp_path / "shorter"))[1]
    assert shorter.tokens < result.tokens
    with pytest.raises(BadSetting, match=r"training\.context is 8 and task classify; it is for task lm"):
        replace(values, task="classify", training=replace(values.training, context=8))


def test_pairs_and_files_are_classified(cli: Cli, home: Path, tmp_path: Path) -> None:
    rows = texts(40)
    pairs = [(text, other, "same" if label == same else "other") for (text, label), (other, same) in pairwise(rows)]
    file = table(tmp_path / "pairs.tsv", pairs, "sentence1\tsentence2\tlabel")
    values = replace(recipe(home, tmp_path / "run", training={"num_train_epochs": 1}), data=(str(file),))
    run(replace(values, truncate="right"))
    read = clearstory.classify(
        tmp_path / "run", file, pair_column="sentence2", text_field="sentence1", truncate="right"
    )
    assert [(each.text, each.pair) for each in read] == [pair[:2] for pair in pairs]
    alone = clearstory.classify(tmp_path / "run", pairs[0][0], pair=pairs[0][1], truncate="right")[0]
    assert alone.labels[0].probability == pytest.approx(read[0].labels[0].probability, rel=1e-5)
    tilde = clearstory.classify(tmp_path / "run", "~nobody was good", pair="good film", truncate="right")
    assert tilde[0].text == "~nobody was good"  # a text, and no path of an unknown user
    table_file, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    for out in (table_file, lines):
        words = ("--pair-column", "sentence2", "--text-field", "sentence1", "--truncate", "right", "--out", out)
        assert cli("classify", tmp_path / "run", file, *words).status == 0
    assert table_file.read_text().splitlines()[0] == "text,pair,label,probability,other,same"
    assert json.loads(lines.read_text().splitlines()[0])["pair"] == pairs[0][1]
    assert cli("classify", tmp_path / "run", file, "--out", tmp_path / "out.txt").status == 2


def test_probabilities_of_windows_are_averaged(home: Path, tmp_path: Path) -> None:
    run(recipe(home, tmp_path / "run", "gpt2", training={"num_train_epochs": 1}))
    words = ("film " * 30 + "good").split()  # 31 tokens, context 24, stride 6: windows from 0, 6 and 7

    def of(text: str, stride: int | None = None) -> dict[str, float]:
        found = clearstory.classify(tmp_path / "run", text, stride=stride)[0].labels
        return {each.label: each.probability for each in found}

    parts = [of(" ".join(words[start : start + 24])) for start in (0, 6, 7)]
    assert of(" ".join(words), stride=6)["good"] == pytest.approx(np.mean([each["good"] for each in parts]), rel=1e-5)


def test_evaluate_scores_a_fine_tuned_model(cli: Cli, home: Path, tmp_path: Path) -> None:
    _, result = run(recipe(home, tmp_path / "run", validation=str(home / "dev.tsv")))
    answer = cli("evaluate", tmp_path / "run", home / "dev.tsv", "--task", "classify", "--json")
    found = json.loads(answer.out)
    assert found["metrics"] == pytest.approx(dict(result.metrics))
    other = table(tmp_path / "other.tsv", [(text, "dull") for text, _ in texts(9)])
    answer = cli("evaluate", tmp_path / "run", other, "--task", "classify")
    assert (answer.status, "dull" in answer.err) == (1, True)
    assert cli("evaluate", home / "bert", home / "dev.tsv", "--task", "classify").status == 1  # no head
    words = ("evaluate", tmp_path / "run", home / "dev.tsv", "--task", "classify", "--limit", "9")
    assert "limit does not apply to task classify" in cli(*words).err


def test_settings_reach_the_trainer() -> None:
    values = {
        "batch_size": 3, "batch_tokens": 96, "average_checkpoints": 2, "context": 17,
        "gradient_accumulation_steps": 5, "learning_rate": 0.5, "layer_decay": 0.25,
        "schedule": "cosine", "warmup_ratio": 0.125, "weight_decay": 0.75, "label_smoothing": 0.375,
        "gradient_clip": 2.0, "eval_steps": 7, "save_steps": 8, "keep_checkpoints": 9, "patience": 6,
        "precision": "bf16", "matmul": "onednn", "device": "meta", "threads": 4, "seed": 11,
    }  # fmt: skip
    assert values.keys() == set(SHARED_TRAINING_SETTINGS)
    given = FinetuneTrainingSettings(**values)
    made, usual = given.training_settings(), FinetuneTrainingSettings().training_settings()
    for name, value in values.items():
        assert getattr(made, name) == value
        assert getattr(usual, name) != value


def test_lora_settings_reach_the_model(home: Path, tmp_path: Path) -> None:
    lora = {"rank": 3, "alpha": 5.0, "targets": ("up",), "dropout": 0.25, "modules_to_save": ("embedding_norm",)}
    values = recipe(home, tmp_path / "run", lora=lora, training={"num_train_epochs": 1})
    preparation = FinetuningPreparation()
    made = preparation(RunFolder(tmp_path / "none"), values, TimeBudget(float("inf")))
    layers = lora_layers(made.model)
    assert {name.rpartition(".")[2] for name in layers} == {"up"}
    assert {(each.rank, each.alpha, each.dropout) for each in layers.values()} == {(3, 5.0, 0.25)}
    trained = {name for name, each in made.model.named_parameters() if each.requires_grad}
    whole = {name.rpartition(".")[0] for name in trained if "lora" not in name}
    assert whole == {"classifier", "pooler", "backbone.embedding_norm"}


@pytest.mark.slow
def test_time_limits_are_kept(home: Path, tmp_path: Path) -> None:
    for name, more in (("clock", {"minutes": 0.025}), ("cpu", {"cpu_seconds": 1.5})):
        started = time.process_time()
        _, result = run(recipe(home, tmp_path / name, **more))
        assert result.steps >= 1
        assert time.process_time() - started < 12  # loading and the last evaluation of a busy machine included


def test_a_stopped_run_says_how_to_continue(home: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        for event in finetune_events(recipe(home, tmp_path / "run")):
            if isinstance(event, StepCompleted) and event.step == 3:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="clearstory finetune --resume --out"):
        interrupt()
    resumed = build_settings(FinetuneRecipe, {"resume": True, "out": tmp_path / "run"})
    assert run(resumed)[1].steps == 20


def test_the_baseline_is_that_of_scikit_learn(home: Path, tmp_path: Path) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    values = {"validation": str(home / "dev.tsv"), "test": str(home / "dev.tsv"), "out": tmp_path / "run"}
    result = clearstory.finetune("tfidf", home / "train.tsv", **values)  # type: ignore[arg-type]
    words = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    train, dev = texts(160), texts(60, seed=1)
    known = {text for text, _ in dev}
    train = [each for each in train if each[0] not in known]
    model = linear.LogisticRegression(C=10.0, max_iter=1000)
    model.fit(words.fit_transform([text for text, _ in train]), [label for _, label in train])
    expected = model.score(words.transform([text for text, _ in dev]), [label for _, label in dev])
    assert result.metrics["accuracy"] == pytest.approx(expected)
    assert result.test_metrics["accuracy"] == pytest.approx(expected)
    with pytest.raises(BadSetting, match="freeze does not apply to tfidf"):
        clearstory.finetune("tfidf", home / "train.tsv", freeze="1", out=tmp_path / "other")


def test_nothing_held_out_keeps_the_last_weights(home: Path, tmp_path: Path) -> None:
    values = recipe(home, tmp_path / "run", validation="0", test=str(home / "dev.tsv"))
    _, result = run(values)
    assert result.metrics == {}
    assert "accuracy" in result.test_metrics
