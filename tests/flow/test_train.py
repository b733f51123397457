"""Training end to end, through the recipe and through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import clearstory
from clearstory import durable
from clearstory.errors import BadInput, BadSetting, CheckpointMismatch, FolderExists
from clearstory.metrics import Score
from clearstory.recipes.settings.training import build_train_recipe
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.events import (
    Evaluated,
    ModelSaved,
    RunPlanned,
    RunPrepared,
    StepCompleted,
    TextSampled,
    TrainingResult,
    TrainingWarning,
)
from clearstory.recipes.training.loop import train_events
from clearstory.recipes.training.time_budget import TimeBudget
from clearstory.recipes.training.training_run import TrainingRun
from clearstory.text.corpus import Corpus
from clearstory.training import checkpoint
from clearstory.training.objectives.base import Validation
from clearstory.training.trainer import StepResult, Trainer
from trained import all_events, contents, flags, metrics_without_times, recipe, text_file, words


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def test_train_prints_folder_and_quality_as_json(made: Any) -> None:
    assert {"folder", "bits_per_byte", "cpu_seconds", "seconds", "tokens"} <= made.said.keys()
    assert Path(made.said["folder"]) == made.run / "model"
    # 8 steps of 4 rows of 8 tokens
    assert made.said["tokens"] == 8 * 4 * 8
    assert 0 < made.said["bits_per_byte"] < 8
    assert made.said["seconds"] > 0
    assert made.said["cpu_seconds"] > 0


def test_the_run_folder_has_its_documented_files(made: Any) -> None:
    names = {path.name for path in made.run.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "tokenizer", "checkpoints", "model"} <= names
    assert [path.name for path in checkpoint.list_checkpoints(made.run)] == [
        "step-000000",
        "step-000004",
        "step-000008",
    ]
    assert [row["step"] for row in metrics_without_times(made.run) if row["kind"] == "step"] == list(range(1, 9))
    for row in (json.loads(line) for line in (made.run / "metrics.jsonl").read_text().splitlines()):
        assert row["seconds"] >= 0


@pytest.mark.parametrize("which", ["run", "run/model", "run/checkpoints/step-000008"])
def test_it_generates_from_the_command_line(made: Any, cli: Callable[..., Any], which: str) -> None:
    words = ["generate", made.run.parent / which, "the c", "--max-tokens", "7", "--seed", "1", "--json"]
    answer = cli(*words)
    assert answer.status == 0
    said = json.loads(answer.out)
    assert said["tokens"] == 7
    assert len(said["text"]) == 7  # its tokens are characters
    assert said["tokens_per_second"] > 0
    assert json.loads(cli(*words).out)["text"] == said["text"]


def test_it_generates_plain_text_too(made: Any, cli: Callable[..., Any]) -> None:
    answer = cli("generate", made.run, "the c", "--max-tokens", "7", "--seed", "1")
    assert answer.status == 0
    assert answer.out.startswith("the c")
    assert len(answer.out.rstrip("\n")) >= len("the c")


def test_evaluate_agrees_with_the_training_result(cli: Callable[..., Any], tmp_path: Path) -> None:
    """On whole documents: both end each of them, while the held-out part of a single document is never ended."""
    texts, held_out = tmp_path / "texts.jsonl", tmp_path / "held-out.jsonl"
    texts.write_text("".join(json.dumps({"text": words(30, seed)}) + "\n" for seed in range(20)), encoding="utf-8")
    result = all_events(recipe(texts, tmp_path / "run"))[-1]
    assert isinstance(result, TrainingResult)
    documents = list(Corpus.open(texts).documents("validation"))
    assert len(documents) > 1
    held_out.write_text("".join(json.dumps({"text": each.text}) + "\n" for each in documents), encoding="utf-8")
    answer = cli("evaluate", tmp_path / "run", held_out, "--windows", "blocks", "--json")
    assert answer.status == 0
    said = json.loads(answer.out)
    assert said["nats_per_token"] == pytest.approx(result.nats_per_token, rel=1e-6)
    assert said["bits_per_byte"] == pytest.approx(result.bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "words"])
def test_evaluate_agrees_where_there_are_several_documents(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(30):
        (tmp_path / "texts" / f"{number:02}.txt").write_text(words(20, seed=number), encoding="utf-8")
    *_, finished = all_events(recipe(tmp_path / "texts", tmp_path / "run", tokenizer=tokenizer))
    assert isinstance(finished, TrainingResult)
    held_out = [document.text for document in Corpus.open(tmp_path / "texts").documents("validation")]
    assert len(held_out) > 1
    found = clearstory.evaluate(tmp_path / "run", texts=held_out, windows="blocks")
    assert found.score.nats_per_token == pytest.approx(finished.nats_per_token, rel=1e-6)
    if tokenizer == "words":  # which loses white space
        assert found.bits_per_byte is finished.bits_per_byte is None
    else:
        assert finished.bits_per_byte is not None
        assert found.bits_per_byte == pytest.approx(finished.bits_per_byte, rel=1e-6)


def test_events_come_in_order(text: Path, tmp_path: Path) -> None:
    events = all_events(recipe(text, tmp_path / "run"))
    kinds = [event.kind if isinstance(event, ModelSaved) else type(event).__name__ for event in events]
    first = ["RunPrepared", "RunPlanned", "checkpoint"]
    # Of eight steps the weights of each are kept; the model is saved when it is the best so far.
    half = ["StepCompleted", "weights"] * 3 + ["StepCompleted", "Evaluated", "model", "weights", "checkpoint"]
    assert kinds == first + half + half + ["TrainingResult"]
    prepared, planned = events[:2]
    assert isinstance(prepared, RunPrepared)
    assert isinstance(planned, RunPlanned)
    assert (prepared.bytes, planned.steps) == (len(text.read_bytes()), 8)
    assert [event.step for event in events if isinstance(event, StepCompleted)] == list(range(1, 9))


def stopped_after(step: int, run: Any, number: int = signal.SIGINT) -> list[Any]:
    """Events of a run that gets a signal after a step."""
    events = []

    def watch() -> None:
        for event in train_events(run):
            events.append(event)
            if isinstance(event, StepCompleted) and event.step == step:
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match=r"continue with: clearstory train --resume --out"):
        watch()
    return events


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(text: Path, tmp_path: Path, number: int) -> None:
    more: dict[str, Any] = {"model.dropout": 0.2, "training.gradient_accumulation_steps": 2}
    all_events(recipe(text, tmp_path / "alone" / "run", **more))
    out = tmp_path / "stopped" / "run"
    before = signal.getsignal(signal.SIGINT)
    *_, saved = stopped_after(3, recipe(text, out, **more), number)
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(saved, ModelSaved)
    assert saved.path.name in ("step-000003", "step-000004")  # it stops after the current step
    all_events(recipe(text, out, resume=True, **more))
    assert metrics_without_times(out) == metrics_without_times(tmp_path / "alone" / "run")
    assert contents(out / "model") == contents(tmp_path / "alone" / "run" / "model")


def test_a_finished_run_can_be_made_longer(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    finished = all_events(recipe(made.text, tmp_path / "run", resume=True, steps=12, **{"data.cache": tmp_path}))[-1]
    assert isinstance(finished, TrainingResult)
    assert finished.steps == 12
    rows = metrics_without_times(tmp_path / "run")
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 13))
    assert [row["step"] for row in rows if row["kind"] == "end"] == [12]


def test_resuming_a_finished_run_changes_nothing(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    all_events(recipe(made.text, tmp_path / "run", resume=True, **{"data.cache": tmp_path}))
    assert metrics_without_times(tmp_path / "run") == metrics_without_times(made.run)
    assert contents(tmp_path / "run" / "model") == contents(made.run / "model")


def test_resuming_without_a_run_starts_a_new_one(text: Path, tmp_path: Path) -> None:
    assert isinstance(all_events(recipe(text, tmp_path / "new" / "run", resume=True))[-1], TrainingResult)


def test_an_existing_run_is_not_overwritten(made: Any, tmp_path: Path) -> None:
    before = contents(made.run)
    with pytest.raises(FolderExists, match=r"already has a run; --resume continues a run, --overwrite replaces"):
        all_events(recipe(made.text, made.run))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FolderExists, match="already has files"):
        all_events(recipe(made.text, tmp_path / "mine"))
    for out in (tmp_path / "mine" / "letter.txt", tmp_path / "mine" / "letter.txt" / "run"):
        with pytest.raises(FolderExists, match=r"letter.txt is a file, but .* must be a folder"):
            all_events(recipe(made.text, out))
    assert contents(made.run) == before
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_overwriting_replaces_the_run_and_nothing_else(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    all_events(recipe(made.text, tmp_path / "run", overwrite=True, steps=4))
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "run")] == ["step-000000", "step-000004"]


def test_overwriting_with_a_run_that_cannot_start_keeps_the_old_run(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(BadInput):
        all_events(recipe(tmp_path / "nowhere.txt", tmp_path / "run", overwrite=True))
    with pytest.raises(BadInput, match="one window needs"):
        all_events(recipe(made.text, tmp_path / "run", overwrite=True, **{"training.context": 10_000}))
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("text.txt", "old [1]/text.txt"),
        ("../old [1]/text.txt", "other/../old [1]/text.txt"),
        ("*.txt", "old [[]1]/*.txt"),
        (".", "old [1]"),
    ],
)
def test_a_run_resumes_from_any_folder(
    here: str, there: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old [1]", "other"):
        (tmp_path / name).mkdir()
    shutil.copy(made.text, tmp_path / "old [1]")
    monkeypatch.chdir(tmp_path / "old [1]")
    all_events(recipe(here, tmp_path / "run", steps=1))
    monkeypatch.chdir(tmp_path)
    prepared, *_, finished = all_events(build_train_recipe({"out": "run", "resume": True, "steps": 2}))
    assert isinstance(prepared, RunPrepared)
    assert isinstance(finished, TrainingResult)
    assert finished.steps == 2
    assert prepared.corpus == (Path(here).name or "old [1]")
    all_events(recipe(there, Path("run"), resume=True, steps=2))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [({"order": 9}, "set model.order to 8 or less"), ({"smoothing": "given"}, "read from a file")],
)
def test_an_n_gram_that_cannot_be_fitted_leaves_nothing(tmp_path: Path, overrides: dict[str, Any], says: str) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(30):  # six characters, between the token that begins texts and the one that ends them
        (tmp_path / "texts" / f"{number:02}.txt").write_text(f"{number:06}")
    said = {"text": (str(tmp_path / "texts"),), "tokenizer": "characters", "data.cache": tmp_path / "cache"}
    with pytest.raises(BadSetting, match=says):
        all_events(build_train_recipe({**said, "model": {"name": "ngram", **overrides}, "out": tmp_path / "run"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("training.learning_rate", 0.5, "training.learning_rate 0.01, but now it is 0.5"),
        ("training.warmup_steps", 0, "training.warmup_steps 2, but now it is 0"),
        ("training.device", "meta", "training.device cpu, but now it is meta"),
        ("model.width", 32, "model.width 16, but now it is 32"),
        ("tokenizer", "bytes", "tokenizer characters, but now it is bytes"),
        ("data.validation", 0.5, "data.validation 0.1, but now it is 0.5"),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["with the text", "without"])
def test_resuming_with_other_settings_is_refused(made: Any, key: str, value: object, says: str, whole: bool) -> None:
    said: dict[str, Any] = {"resume": True, key: value, "data.cache": made.run.parent / "cache"}
    other = recipe(made.text, made.run, **said) if whole else build_train_recipe({"out": made.run, **said})
    before = contents(made.run)
    with pytest.raises(CheckpointMismatch, match=f"was started with {says}"):
        all_events(other)
    assert contents(made.run) == before


def test_resuming_with_another_text_is_refused(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run.parent, tmp_path / "copy")
    out, text = tmp_path / "copy" / "run", tmp_path / "copy" / "text.txt"
    settings = (out / "config.yaml").read_text().replace(str(made.text), str(text))
    (out / "config.yaml").write_text(settings)
    (out / "checksums.json").unlink()
    text.write_text(words(seed=5), encoding="utf-8")
    with pytest.raises(CheckpointMismatch, match="the text of the run in .* has changed since the run started"):  # noqa: RUF043
        all_events(recipe(text, out, resume=True, **{"data.cache": tmp_path}))


class FakeTime:
    """A clock that advances only while the run works: by the cost of a step, an evaluation and a save."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, step: Callable[[int], float], evaluation: float, save: float
    ) -> None:
        self.now = time.monotonic()
        # The real clocks are the defaults of a TimeBudget's start.
        monkeypatch.setattr(
            "clearstory.recipes.training.loop.TimeBudget", lambda seconds: TimeBudget(seconds, self.tick(), self.work())
        )
        self.patch(monkeypatch, Trainer, "train_step", lambda trainer: step(trainer.step))
        self.patch(monkeypatch, TrainingRun, "evaluate", lambda run: evaluation)
        self.patch(monkeypatch, TrainingRun, "save_checkpoint", lambda run: save)
        self.patch(monkeypatch, TrainingRun, "save_best_model", lambda run: save)
        # A measurement that lasts until time has passed would never end.
        monkeypatch.setattr("clearstory.recipes.training.model_size.training_speed", lambda settings: 1e9)
        monkeypatch.setattr(time, "monotonic", self.tick)
        monkeypatch.setattr(time, "perf_counter", self.tick)
        monkeypatch.setattr(time, "process_time", self.work)

    def work(self) -> float:
        """CPU time: half of the wall-clock time."""
        return self.tick() / 2

    def tick(self) -> float:
        """A microsecond later."""
        self.now += 1e-6
        return self.now

    def patch(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, cost: Callable[[Any], float]) -> None:
        real = getattr(owner, name)

        def slow(self_: Any, *args: Any, **kind: Any) -> Any:
            self.now += cost(self_)
            return real(self_, *args, **kind)

        monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize(
    "step",
    [lambda step: 0.5, lambda step: 0.5 if step < 30 else 1.0, lambda step: 1.0 if step < 15 else 0.4],
    ids=["steady", "ever slower", "ever faster"],
)
def test_the_time_limit_is_kept_at_any_speed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[int], float]
) -> None:
    clock = FakeTime(monkeypatch, step, evaluation=0.5, save=0.2)
    at_first = clock.now
    more = {"training.eval_steps": 0, "training.save_steps": 0, "steps": None}
    finished = all_events(recipe(text, tmp_path / "run", minutes=1.0, **more))[-1]
    assert isinstance(finished, TrainingResult)
    took = clock.now - at_first
    assert 48 < took <= 64  # of 60; the last step and the end of the run may take a little longer than estimated
    assert finished.seconds == pytest.approx(took, abs=0.1)
    assert finished.steps > 20


def test_cpu_seconds_are_kept(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(monkeypatch, lambda step: 0.5, evaluation=0.5, save=0.2)
    more = {"training.eval_steps": 0, "training.save_steps": 0, "steps": None}
    finished = all_events(recipe(text, tmp_path / "run", cpu_seconds=30.0, **more))[-1]
    assert isinstance(finished, TrainingResult)
    assert 24 < finished.cpu_seconds <= 32
    assert finished.seconds == pytest.approx(2 * finished.cpu_seconds, abs=0.1)
    assert finished.steps > 20
    assert clock.now > finished.seconds


def test_too_few_minutes_are_refused_and_leave_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTime(monkeypatch, lambda step: 5.0, evaluation=0.5, save=0.2)
    with pytest.raises(BadSetting, match=r"0.05 minutes is too short for the first step, which takes 5 s"):
        all_events(recipe(text, tmp_path / "run", minutes=0.05, steps=None))
    assert not (tmp_path / "run").exists()


def fake_losses(monkeypatch: pytest.MonkeyPatch, nats: list[float]) -> None:
    """Evaluations during training yield these losses; the final one is real."""
    real, left = TrainingRun.evaluate, list(nats)

    def evaluate(run: TrainingRun, limit: int | None, *, mixed_precision: bool = True) -> Validation:
        if limit is None:
            return real(run, limit, mixed_precision=mixed_precision)
        return Validation(Score(nats=left.pop(0) * 10, tokens=10, bytes=10))

    monkeypatch.setattr(TrainingRun, "evaluate", evaluate)


EVERY = {"training.eval_steps": 1, "training.save_steps": 1, "training.keep_checkpoints": 9}


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = clearstory.open(path).model.state_dict()
    return state


def test_patience_stops_early_and_the_best_model_is_kept(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_losses(monkeypatch, [3.0, 2.0, 2.5, 2.4, 1.0])
    events = all_events(recipe(text, tmp_path / "run", **EVERY, **{"training.patience": 2}))
    finished = events[-1]
    assert isinstance(finished, TrainingResult)
    assert finished.steps == 4
    assert [event.is_best for event in events if isinstance(event, Evaluated)] == [True, True, False, False]
    best, last = (weights(tmp_path / "run" / "checkpoints" / f"step-00000{step}") for step in (2, 4))
    kept = weights(tmp_path / "run" / "model")
    assert all(torch.equal(kept[name], best[name]) for name in best)
    assert not all(torch.equal(kept[name], last[name]) for name in last)
    before = metrics_without_times(tmp_path / "run")
    assert [row["message"] for row in before if row["kind"] == "warning"] == [
        "stopped early: no improvement over step 2 in 2 evaluations"
    ]
    # Killed before its end and resumed, it is as stopped as before.
    all_events(recipe(text, tmp_path / "run", resume=True, **EVERY, **{"training.patience": 2}))
    assert metrics_without_times(tmp_path / "run") == before


def test_the_threads_setting_is_used(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    all_events(recipe(text, tmp_path / "run", steps=1, **{"training.threads": 7}))
    assert asked[0] == 7


def test_compile_follows_its_setting(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    monkeypatch.setattr("clearstory.recipes.training.time_budget.find_cpp_compiler", lambda: "/usr/bin/c++")
    all_events(recipe(text, tmp_path / "off", steps=1, **{"training.compile": "off"}))
    assert compiled == []
    all_events(recipe(text, tmp_path / "on", steps=1, **{"training.compile": "on"}))
    assert len(compiled) == 1
    monkeypatch.setattr("clearstory.recipes.training.time_budget.find_cpp_compiler", lambda: None)
    events = all_events(recipe(text, tmp_path / "no-compiler", steps=1, **{"training.compile": "on"}))
    assert len(compiled) == 1
    (warned,) = [event for event in events if isinstance(event, TrainingWarning)]
    assert warned.message.startswith("there is no C++ compiler, so steps run uncompiled")


def test_samples_are_events_and_change_nothing(made: Any, text: Path, tmp_path: Path) -> None:
    events = all_events(recipe(text, tmp_path / "run", **{"training.sample_steps": 4}))
    samples = [event for event in events if isinstance(event, TextSampled)]
    assert [event.step for event in samples] == [4, 8]
    assert all(event.text for event in samples)
    kept = metrics_without_times(tmp_path / "run")
    assert [row["text"] for row in kept if row["kind"] == "sample"] == [event.text for event in samples]
    assert [row for row in kept if row["kind"] != "sample"] == metrics_without_times(made.run)
    assert contents(tmp_path / "run" / "model") == contents(made.run / "model")


def stop_at(step: int, times: int = 1) -> None:
    """Ctrl-C while the checkpoint of a step is written."""
    left = [times]

    def listen(label: str, path: Path) -> None:
        if label == "flush" and f"step-{step:06d}" in str(path) and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)

    durable.hooks.append(listen)


def test_ctrl_c_ends_with_a_checkpoint_one_line_and_status_130(
    made: Any, text: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    stop_at(4)
    answer = cli(*flags(text, out), "--json")
    assert answer.status == 130
    assert answer.out == ""
    # The signal is checked after a save too: step 4 was complete, so the run ends there.
    assert answer.last == f"stopped at step 4; continue with: clearstory train --resume --out {out}"
    assert "Traceback" not in answer.err
    durable.hooks.clear()
    assert checkpoint.load_checkpoint(checkpoint.list_checkpoints(out)[-1]).step == 4
    resumed = cli("train", "--resume", "--out", out, "--json")
    assert resumed.status == 0
    assert json.loads(resumed.out)["bits_per_byte"] == made.said["bits_per_byte"]
    assert metrics_without_times(out) == metrics_without_times(made.run)


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_stays(
    text: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    stop_at(8, times=2)
    answer = cli(*flags(text, out))
    assert answer.status == 130
    assert answer.last == "clearstory train: stopped"
    durable.hooks.clear()
    assert [checkpoint.load_checkpoint(path).step for path in checkpoint.list_checkpoints(out)] == [0, 4]
    assert cli("train", "--resume", "--out", out).status == 0


def test_a_loss_that_is_nan_ends_with_a_checkpoint_of_the_last_weights(
    text: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer.train_step

    def train_step(trainer: Trainer) -> StepResult:
        if trainer.step == 5:
            with torch.no_grad():
                next(iter(trainer.model.buffers()), trainer.parameters[0])  # the weights are finite; the loss is not
            monkeypatch.setattr(Trainer, "backward", lambda *_: ({"next": float("nan")}, None))
        return real(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    answer = cli(*flags(text, tmp_path / "run"))
    assert answer.status == 1
    assert "the loss became nan" in answer.last
    assert "at step 6; the weights of step 5 are kept; lower --training.learning_rate" in answer.last
    last = checkpoint.load_checkpoint(checkpoint.list_checkpoints(tmp_path / "run")[-1])
    assert last.step == 5
    assert all(value.isfinite().all() for value in last.model.values())
    assert [row["step"] for row in metrics_without_times(tmp_path / "run") if row["kind"] == "step"] == [1, 2, 3, 4, 5]


@pytest.mark.skipif(find_spec("sklearn") is None, reason="corpus:digits is scikit-learn's")
def test_windows_of_digits_start_with_an_image_by_default(tmp_path: Path) -> None:
    for number, (said, found) in enumerate([({}, True), ({"training.align_documents": False}, False)]):
        out = tmp_path / f"run{number}"
        all_events(recipe("corpus:digits", out, steps=1, **said))
        assert read_yaml(out / "config.yaml")["training"]["align_documents"] is found
        all_events(build_train_recipe({"out": out, "resume": True, "steps": 2}))
