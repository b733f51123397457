"""Vectors of texts end to end: trained on pairs, triplets and scores, saved, and read by embed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import TINY_GPT2, TINY_LSTM, TINY_NGRAM

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow
from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.finetuning.preparation import FinetuningPreparation
from clearstory.recipes.inference.evaluate_task import evaluate_on_task
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import ModelSaved
from clearstory.recipes.training.run_folder import RunFolder
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.checkpoint import load_checkpoint

Cli = Callable[..., Any]

SYNONYMS = {"film": "movie", "song": "tune", "book": "novel", "meal": "dinner", "walk": "stroll", "game": "match"}
BACKBONES = {
    "bert": replace(MINILM, context=24, width=16, layers=2, heads=2, kv_heads=2, head_dim=8, intermediate_size=32),
    "gpt2": TINY_GPT2,
    "lstm": TINY_LSTM,
}
TRAINING: dict[str, Any] = {
    "num_train_epochs": 3, "learning_rate": 5e-3, "precision": "fp32", "threads": 1, "device": "cpu", "eval_steps": 4,
    "matmul": "mkl", "batch_size": 16,
}  # fmt: skip


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and the same in other words; no two are equal."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        words = [draw.choice(list(SYNONYMS)) for _ in range(draw.randint(2, 5))]
        found[" ".join(words)] = " ".join(SYNONYMS[word] for word in words)
    return list(found.items())


def table(path: Path, header: str, rows: list[tuple[Any, ...]]) -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each backbone, and files of each kind of data; no test changes them."""
    home = tmp_path_factory.mktemp("vectors")
    rows, other = pairs(64), random.Random(1)
    table(home / "pairs.tsv", "anchor\tpositive", list(rows))
    table(home / "triplets.tsv", "anchor\tpositive\tnegative", [(*row, other.choice(rows)[1]) for row in rows])
    scored = [(*row, 5) for row in rows] + [(row[0], other.choice(rows)[1], other.choice([1, 2])) for row in rows]
    table(home / "scores.tsv", "sentence1\tsentence2\tscore", scored)
    table(home / "dev.tsv", "anchor\tpositive", list(pairs(20, seed=5)))
    lines = [text for row in rows for text in row]
    for name, config in BACKBONES.items():
        tokenizer = train_tokenizer("wordpiece:80" if name == "bert" else "words", lines)
        model = build(replace(config, vocab=tokenizer.vocab), seed=3)
        save_model(home / name, model, tokenizer, ModelCard(name=name, family=config.family, parameters=0))
    return home


def recipe(home: Path, out: Path, model: str = "bert", data: str = "pairs", **more: Any) -> FinetuneRecipe:
    training = {**TRAINING, **more.pop("training", {})}
    values = {"model": str(home / model), "data": (str(home / f"{data}.tsv"),), "task": "embed", "out": out, **more}
    return build_settings(FinetuneRecipe, {**values, "training": training})


def run(settings: FinetuneRecipe) -> Any:
    return list(finetune_events(settings))[-1]


def made_task(settings: FinetuneRecipe) -> Any:
    """The task and the model of a recipe, ready for the first step."""
    preparation = FinetuningPreparation()
    run = preparation(RunFolder(Path("unused")), settings, TimeBudget(float("inf")))
    return preparation.task, run.model, preparation.data


@pytest.mark.parametrize(
    ("model", "data", "metric"),
    [
        ("bert", "pairs", "mrr"),
        ("gpt2", "triplets", "triplet_accuracy"),
        pytest.param("lstm", "scores", "spearman", marks=pytest.mark.slow),
        ("lstm", "pairs", "mrr"),
    ],
)
def test_every_backbone_learns_and_embed_reads_its_folder(
    model: str, data: str, metric: str, home: Path, tmp_path: Path
) -> None:
    rate = 2e-2 if model == "lstm" else 5e-3
    settings = recipe(home, tmp_path / "run", model, data, training={"num_train_epochs": 4, "learning_rate": rate})
    before = evaluate_on_task(home / model, settings.data, "embed").metrics[metric]
    result = run(settings)
    assert evaluate_on_task(tmp_path / "run", settings.data, "embed").metrics[metric] > max(0.5, before)
    low, high = result.intervals[metric]
    assert low <= result.metrics[metric] <= high
    embeddings = clearstory.embed(tmp_path / "run", "film song")
    assert embeddings.pooling == ("mean, normalize" if model == "bert" else "lasttoken, normalize")
    assert embeddings.note is None
    assert np.linalg.norm(embeddings.vectors) == pytest.approx(1, abs=1e-5)
    config = json.loads((result.folder / "tokenizer_config.json").read_text())
    assert config["pad_token"] == ("[PAD]" if model == "bert" else config["eos_token"])
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]
    assert report["metrics"] == pytest.approx(dict(result.metrics))
    assert all(each["text"] and each["location"] for each in report["details"]["worst"])
    assert "95 % interval" in (tmp_path / "run" / "report.html").read_text()


def test_the_ranks_of_a_run_are_those_of_its_vectors(home: Path, tmp_path: Path) -> None:
    result = run(recipe(home, tmp_path / "run", validation=str(home / "dev.tsv"), test=str(home / "dev.tsv")))
    rows = pairs(20, seed=5)
    anchors, positives = (clearstory.embed(result.folder, [row[side] for row in rows]).vectors for side in (0, 1))
    cosines = anchors @ positives.T
    own = np.diag(cosines)[:, None]
    ranks = (cosines >= own - 1e-6).sum(1)
    assert result.metrics["mrr"] == pytest.approx((1 / ranks).mean(), abs=0.03)  # near-equal cosines may change places
    assert result.test_metrics == pytest.approx(result.metrics)


def test_an_adapter_gives_the_vectors_of_the_merged_model(home: Path, tmp_path: Path) -> None:
    for model in ("bert", "gpt2"):
        settings = recipe(home, tmp_path / model, model, lora={"rank": 2}, training={"num_train_epochs": 1})
        folder = run(settings).folder
        assert (folder / "adapter_config.json").is_file()
        merged = clearstory.convert(folder, tmp_path / f"{model}-merged").path
        one, other = (clearstory.embed(each, ["film song", "a book"]) for each in (folder, merged))
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
        assert one.pooling == other.pooling
        base = clearstory.embed(home / model, ["film song"], pooling="mean" if model == "bert" else "last")
        assert not np.allclose(base.vectors / np.linalg.norm(base.vectors), one.vectors[:1], atol=1e-4)


@pytest.mark.parametrize("how", ["all", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_resumed_run_of_vectors_ends_as_an_uninterrupted_one(how: str, home: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"lora": {"rank": 2, "dropout": 0.1}} if how == "lora" else {}
    training = {"num_train_epochs": 2, "batch_size": 8, "gradient_accumulation_steps": 2}
    whole = recipe(home, tmp_path / "whole", data="triplets", training=training, **more)
    run(whole)
    part = replace(whole, out=tmp_path / "part")
    for event in finetune_events(part):
        if isinstance(event, ModelSaved) and event.kind == "checkpoint" and event.step == 4:
            break
    run(replace(part, resume=True))
    one, other = (load_checkpoint(max((tmp_path / name / "checkpoints").glob("step-*"))) for name in ("whole", "part"))
    assert one.step == other.step
    assert all(torch.equal(value, other.model[name]) for name, value in one.model.items())


def test_frozen_layers_of_an_encoder_stay(home: Path, tmp_path: Path) -> None:
    before = open_model(home / "bert").model.state_dict()
    after = open_model(run(recipe(home, tmp_path / "run", freeze="1")).folder).model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith(("embedding.", "blocks.0"))]


def test_copies_of_a_text_are_no_negatives(home: Path) -> None:
    task, model, _ = made_task(recipe(home, Path("unused")))
    model.eval()
    rows = task.encode(clearstory_examples([("film", "movie"), ("song", "tune"), ("film", "Movie"), ("film", "novel")]))
    total = task.loss(model, task.batch(rows))["pairs"].total.detach()
    # Of the other texts, only tune is no positive of film; of song, movie and novel are none.
    with torch.no_grad():
        batch = task.batch(rows)
        anchors, positives = (
            torch.nn.functional.normalize(task.vectors(model, each), dim=-1) for each in (batch.tokens, batch.positives)
        )
        logits = 20 * anchors @ positives.T
        expected = sum(
            float(torch.logsumexp(logits[row, kept], 0) - logits[row, row])
            for row, kept in ((0, [0, 1]), (1, [0, 1, 2, 3]), (2, [1, 2]), (3, [1, 3]))
        )
    assert float(total) == pytest.approx(expected, rel=1e-5)


def clearstory_examples(rows: list[tuple[str, str]]) -> list[Any]:
    from clearstory.tasks.data.examples import SimilarityExample

    return [SimilarityExample(anchor, positive) for anchor, positive in rows]


def test_settings_of_vectors_reach_the_loss(home: Path, tmp_path: Path) -> None:
    losses = {}
    for name, data, embed in (
        ("usual", "triplets", {}),
        ("scale", "triplets", {"scale": 1.0}),
        ("symmetric", "triplets", {"symmetric": True}),
        ("loss", "triplets", {"loss": "triplet"}),
        ("margin", "triplets", {"loss": "triplet", "margin": 0.25}),
        ("pooling", "triplets", {"pooling": "max"}),
    ):
        task, model, examples = made_task(recipe(home, tmp_path, data=data, embed=embed))
        model.eval()
        losses[name] = float(
            task.loss(model, task.batch(task.encode(examples.train.examples)[:16]))["pairs"].total.detach()
        )
    assert len({round(loss, 4) for loss in losses.values()}) == len(losses)
    plain = run(recipe(home, tmp_path / "plain", embed={"normalize": False}, training={"num_train_epochs": 1}))
    assert clearstory.embed(plain.folder, "film").pooling == "mean"


def test_a_folder_keeps_its_pooling_prompts_and_length(home: Path, tmp_path: Path) -> None:
    first = run(recipe(home, tmp_path / "first", embed={"pooling": "cls", "normalize": False}, steps=1))
    settings = json.loads((first.folder / "config_sentence_transformers.json").read_text())
    settings |= {"prompts": {"query": "film "}}
    open_again = tmp_path / "again"
    opened = open_model(first.folder)
    save_model(open_again, opened.model, opened.tokenizer, opened.card)
    for name in ("modules.json", "sentence_bert_config.json"):
        (open_again / name).write_bytes((first.folder / name).read_bytes())
    (open_again / "1_Pooling").mkdir()
    (open_again / "1_Pooling" / "config.json").write_bytes((first.folder / "1_Pooling" / "config.json").read_bytes())
    (open_again / "config_sentence_transformers.json").write_text(json.dumps(settings))
    second = run(replace(recipe(home, tmp_path / "second", steps=1), model=str(open_again)))
    assert clearstory.embed(second.folder, "song").pooling == "cls"
    prompted = clearstory.embed(second.folder, "song", prompt="query").vectors
    np.testing.assert_allclose(prompted, clearstory.embed(second.folder, "film song").vectors, atol=1e-6)


def test_what_has_no_vectors_or_other_data_is_refused(home: Path, tmp_path: Path, cli: Cli) -> None:
    equal = table(tmp_path / "equal.tsv", "sentence1\tsentence2\tscore", [(*row, 3) for row in pairs(20)])
    one = table(
        tmp_path / "one.tsv", "text\tlabel", [(row[0], "a" if i % 2 else "b") for i, row in enumerate(pairs(20))]
    )
    empty = table(tmp_path / "empty.tsv", "anchor\tpositive", [("a film", ""), *pairs(10)])
    long = table(tmp_path / "long.tsv", "anchor\tpositive", [("film " * 40, "a movie"), *pairs(10)])
    for settings, error, expected in (
        ({"data": (str(one),)}, BadInput, "two columns that are recognized as pairs of texts"),
        ({"data": (str(equal),)}, BadInput, "all 18 training pairs .* have the score 3"),
        ({"data": (str(empty),)}, BadInput, "line 2: the text in 'positive' is empty"),
        ({"embed": {"loss": "triplet"}}, BadSetting, "embed.loss is triplet, which needs triplets"),
        ({"embed": {"loss": "cosine_similarity"}}, BadSetting, "needs pairs with scores"),
        ({"embed": {"scale": 0.0}}, BadSetting, "embed.scale is 0"),
        ({"task": "pairs", "data": (str(one),)}, BadInput, "--task pairs needs two"),
        ({"task": "pairs", "data": (str(home / "triplets.tsv"),)}, BadInput, "label"),
        ({"task": "classify", "embed": {"scale": 1.0}}, BadSetting, "embed settings are for task embed"),
        ({"freeze": "all"}, BadSetting, "freeze is for a head"),
        ({"stride": 3}, BadSetting, "stride is for a head"),
        ({"training": {"batch_size": 1}}, BadSetting, "batch_size is 1"),
        ({"problem": "multi"}, BadSetting, "problem is for a head"),
        ({"data": (str(long),)}, ContextOverflow, "line 2 has 40 tokens, but 22 fit .* --truncate right"),
        ({"training": {"class_weights": ("balanced",)}}, BadSetting, "class_weights is for a head"),
    ):
        with pytest.raises(error, match=expected):  # noqa: PT012  # the recipe or the run
            values = {"data": (str(home / "pairs.tsv"),), "task": "embed", **settings}
            training = {**TRAINING, **values.pop("training", {})}
            whole = {"model": str(home / "bert"), "out": tmp_path / "run", **values, "training": training}
            run(build_settings(FinetuneRecipe, whole))
        assert not (tmp_path / "run" / "model").exists()
    model = build(replace(TINY_GPT2, vocab=50), seed=1)
    folder = save_model(tmp_path / "bare", model, None, ModelCard())
    for words in (("finetune", folder, home / "pairs.tsv", "--task", "embed"), ("embed", folder, "a film")):
        answer = cli(*words)
        assert answer.status == 1
        assert "tokenizer" in answer.err
        assert len(answer.err.strip().splitlines()) == 1


def test_pairs_are_classified(home: Path, tmp_path: Path) -> None:
    rows = [(a, b, "same") for a, b in pairs(40)] + [
        (a, pairs(40, 3)[i][1], "other") for i, (a, _) in enumerate(pairs(40))
    ]
    file = table(tmp_path / "labels.tsv", "sentence1\tsentence2\tlabel", rows)
    result = clearstory.finetune(
        home / "bert", file, task="pairs", out=tmp_path / "run", training={**TRAINING, "num_train_epochs": 1}
    )
    assert result.metric == "accuracy"
    answers = clearstory.classify(tmp_path / "run", "film song", pair="movie tune")
    assert {label.label for label in answers[0].labels} == {"same", "other"}
    assert evaluate_on_task(tmp_path / "run", [str(file)], "pairs").examples == 80
    classes = [label.label for label in answers[0].labels]
    assert sorted(classes) == ["other", "same"]
    # Its backbone gives vectors, too.
    assert clearstory.embed(tmp_path / "run", "film song").vectors.shape == (1, 16)
    counted = OpenedModel(build(replace(TINY_NGRAM, vocab=50)), train_tokenizer("words", ["film song"]), ModelCard())
    with pytest.raises(CannotDo, match="has no sentence vectors"):
        clearstory.embed(counted, "film")
