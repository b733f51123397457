"""Fine-tuning over HTTP: a run is started, watched, stopped and resumed; its task, labels and scores are listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_home import client
from test_run_processes import once_recorded, records, until

import clearstory
from clearstory.cli.arguments import parse_arguments
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.presets import MINILM
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings, setting_table
from clearstory.studio.run_processes import command_arguments
from clearstory.text.train_tokenizer import train_tokenizer

TINY: dict[str, Any] = {
    "context": 32, "width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32,
}  # fmt: skip

TEXTS = [(f"a {thing} that is {word}", word) for thing in ("film", "song", "book", "meal") for word in ("good", "bad")]


def make(home: Path) -> Path:
    """A folder with a small encoder and a file of labeled texts."""
    rows = [f"{text}, number {number}\t{label}" for number in range(15) for text, label in TEXTS]
    (home / "train.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer("wordpiece:120", [f"{row}" for row in rows])
    config = replace(MINILM, **TINY, pooler=True, vocab=tokenizer.vocab)
    save_model(home / "bert", build(config, seed=1), tokenizer, ModelCard(name="bert"))
    return home


TRAINING = {"threads": 1, "precision": "fp32", "device": "cpu", "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of each kind; no test changes it."""
    home = make(tmp_path_factory.mktemp("studio"))
    training: Any = {**TRAINING, "num_train_epochs": 2.0, "eval_steps": 3, "batch_size": 16}
    clearstory.finetune(home / "bert", home / "train.tsv", out=home / "runs" / "full", training=training)
    lora: Any = {"rank": 2}
    adapter = home / "runs" / "adapter"
    clearstory.finetune(home / "bert", home / "train.tsv", out=adapter, lora=lora, training=training)
    clearstory.finetune("ngram", home / "train.tsv", out=home / "runs" / "counted")
    return home


@pytest.fixture
def studio(finetuned: Path) -> TestClient:
    return client(finetuned)


def test_the_list_has_task_labels_and_metric(studio: TestClient) -> None:
    listed = {each["name"]: each for each in studio.get("/api/models").json()["models"]}
    for name in ("runs/full", "runs/adapter", "runs/counted"):
        each = listed[name]
        assert (each["task"], each["labels"], each["metric"]) == ("classify", ["bad", "good"], "accuracy")
        assert 0 <= each["score"] <= 1
        assert each["problem"] is None
    assert (listed["bert"]["task"], listed["bert"]["labels"], listed["bert"]["score"]) == (None, [], None)


def test_records_status_report_and_curve_of_a_run(studio: TestClient) -> None:
    found = records(studio, "runs/full")
    assert (found["state"], found["task"], found["metric"]) == ("finished", "classify", "accuracy")
    assert found["labels"] == ["bad", "good"]
    assert [row["accuracy"] for row in found["records"] if row["kind"] == "evaluation"]
    assert [row["loss"] for row in found["records"] if row["kind"] == "step"]
    report = studio.get("/api/runs/report", params={"name": "runs/full"}).json()["report"]
    assert report["validation"]["metrics"] == found["metrics"]
    assert report["validation"]["details"]["confusion"]
    curve = studio.get("/api/runs/learning-curve", params={"name": "runs/full"}).json()["view"]
    assert (curve["kind"], curve["lines"][0]["name"]) == ("curve", "accuracy")
    # A run that counts has no evaluations between steps.
    assert studio.get("/api/runs/learning-curve", params={"name": "runs/counted"}).json()["view"] is None
    assert studio.get("/api/runs/report", params={"name": "runs/counted"}).json()["report"]["validation"]


@pytest.mark.parametrize("name", ["runs/full", "runs/adapter", "runs/counted"])
def test_each_view_of_a_head_is_shown_or_refused_in_a_sentence(studio: TestClient, name: str) -> None:
    assert studio.get("/api/model", params={"name": name}).status_code == 200
    views = studio.get("/api/views", params={"name": name}).json()["views"]
    for view in views:
        answer = studio.post("/api/view", json={"model": name, "view": view["name"], "text": "a good film"})
        assert answer.status_code in (200, 400, 404), (view["name"], answer.text)
        assert answer.status_code == 200 or answer.json()["error"], view["name"]
    for path, more in (
        ("next-token", {"text": "a good film"}),
        ("generated-token", {"text": "a good film"}),
        ("trace", {"text": "a good film"}),
        ("arrays", {"function": "embedding_rows", "text": "a good film"}),
    ):
        answer = studio.post(f"/api/{path}", json={"model": name, **more})
        assert answer.status_code < 500, (path, answer.text)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "bert"}, "data is missing"),
        ({"data": ["train.tsv"]}, "model is missing"),
        ({"model": "bert", "data": ["train.tsv"], "seeds": 3}, "seeds is 3, and a request starts one run"),
        ({"model": "bert", "data": ["train.tsv"], "task": "clasify"}, "did you mean 'classify'?"),
        ({"model": "bert", "data": ["train.tsv"], "lora.r": 3}, "did you mean 'lora.rank'?"),
    ],
)
def test_invalid_settings_start_nothing(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    answer = client(tmp_path).post("/api/runs", json={"name": "one", "command": "finetune", "settings": settings})
    assert answer.status_code in (400, 404)
    assert says in answer.json()["error"]
    assert not list(tmp_path.iterdir())


def test_settings_become_arguments_and_form_fields(studio: TestClient) -> None:
    settings = {
        "model": "bert", "data": ["a b.tsv", "--c.tsv"], "task": "tag", "new_head": True, "lora.rank": 2,
        "lora.targets": ["query", "up"],
    }  # fmt: skip
    parsed = parse_arguments(command_arguments(settings, "finetune"), setting_table(FinetuneRecipe))
    assert build_settings(FinetuneRecipe, parsed) == build_settings(FinetuneRecipe, settings)
    form = studio.get("/api/train-form").json()["finetune_settings"]
    assert {"task", "lora.rank", "training.patience", "label_column"} <= {each["key"] for each in form}


@pytest.mark.slow
def test_a_run_is_started_stopped_and_resumed(tmp_path: Path) -> None:
    home = make(tmp_path)
    studio = client(home)
    settings = {
        "model": "bert", "data": ["train.tsv"], "task": "classify", "steps": 100_000,
        "training.eval_steps": 20, "training.save_steps": 20,
        **{f"training.{name}": value for name, value in TRAINING.items()},
    }  # fmt: skip
    begun = studio.post("/api/runs", json={"name": "one", "command": "finetune", "settings": settings})
    assert begun.status_code == 201, begun.text
    live = until(lambda: once_recorded(records(studio), "evaluation"))
    assert live["state"] == "running"
    assert live["metric"] == "accuracy"
    assert live["task"] == "classify"
    assert studio.post("/api/runs/stop", json={"name": "runs/one"}).status_code == 200
    stopped = until(lambda: (result := records(studio))["state"] != "running" and result)
    assert stopped["state"] == "stopped", stopped["message"]
    reached = max(row["step"] for row in stopped["records"])
    assert studio.post("/api/runs/resume", json={"name": "runs/one"}).status_code == 200
    until(lambda: max(row["step"] for row in records(studio)["records"]) > reached)
    studio.post("/api/runs/stop", json={"name": "runs/one"})
    assert until(lambda: (result := records(studio))["state"] != "running" and result)["state"] == "stopped"


@pytest.mark.slow
def test_a_run_that_cannot_read_its_data_has_failed(tmp_path: Path) -> None:
    studio = client(make(tmp_path))
    settings = {"model": "bert", "data": ["nowhere.tsv"]}
    studio.post("/api/runs", json={"name": "one", "command": "finetune", "settings": settings})
    failed = until(lambda: (result := records(studio))["state"] != "running" and result)
    assert failed["state"] == "failed"
    assert failed["message"].startswith("clearstory finetune:")
    assert "nowhere.tsv" in failed["message"]
