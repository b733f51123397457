"""Fine-tuning an existing model: all of its weights, or LoRA adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_train import fake_losses, stopped_after

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, CheckpointMismatch, UnknownName
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.recipes.settings.training_presets import scale_learning_rates
from clearstory.recipes.settings.yaml_files import read_yaml
from clearstory.recipes.training.events import Evaluated, RunPrepared, TrainingResult
from clearstory.training import checkpoint
from trained import TRAINING, all_events, contents, metrics_without_times, words

LORA = {"lora.rank": 2, "lora.dropout": 0.1, "lora.targets": ["query", "up"]}


def fine_tune(text: Path, model: Path, out: Path, /, **more: Any) -> TrainRecipe:
    """A tiny fine-tuning run of eight steps."""
    return build_train_recipe(
        {"text": (str(text),), "init": str(model), "out": out, "steps": 8, "training": TRAINING}, more
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = open_model(path).model.state_dict()
    return state


def last_checkpoint_weights(path: Path) -> dict[str, torch.Tensor]:
    """The model weights of the newest checkpoint."""
    return checkpoint.load_checkpoint(checkpoint.list_checkpoints(path)[-1]).model


@pytest.fixture(scope="module")
def adapted(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder and the events of a run that fine-tunes the finished run's model with LoRA."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    return out, all_events(fine_tune(made.text, made.run, out, **LORA))


def test_fine_tuning_starts_from_the_model_and_improves_it(made: Any, tmp_path: Path) -> None:
    before = contents(made.run)
    prepared, *_, finished = all_events(fine_tune(made.text, made.run, tmp_path / "run"))
    assert isinstance(prepared, RunPrepared)
    assert isinstance(finished, TrainingResult)
    assert prepared.model_summary.endswith(f"from {made.run}")
    assert prepared.tokenizer == "characters"
    first = checkpoint.load_checkpoint(checkpoint.list_checkpoints(tmp_path / "run")[0]).model
    assert all(torch.equal(first[name], value) for name, value in weights(made.run).items())
    assert finished.nats_per_token < made.said["nats_per_token"]
    assert contents(made.run) == before
    card = open_model(tmp_path / "run").card
    assert [size for _, size in card.trained_on] == [open_model(made.run).card.trained_on[0][1]] * 2


ARCHITECTURES: dict[str, tuple[str, str, str]] = {
    "encoder": ("bert-mini", "wordpiece:300", "mlm"),
    "both losses": ("bert-mini", "wordpiece:300", "mlm+nsp"),
    "span corruption": ("t5-small", "bpe:300", "span_corruption"),
    "seq2seq": ("clear-translate", "bpe:300", "seq2seq"),
}


@pytest.mark.parametrize("shape", ARCHITECTURES)
def test_every_architecture_is_fine_tuned_with_its_objective(shape: str, tmp_path: Path, cli: Any) -> None:
    name, tokenizer, objective = ARCHITECTURES[shape]
    texts = [words(40, seed=n).replace("\n", "") + "It was over. " + words(20, seed=n) for n in range(40)]
    text = tmp_path / ("pairs.tsv" if shape == "seq2seq" else "text.jsonl")
    lines = [f"{each[:20]}\t{each[:10]}" if shape == "seq2seq" else json.dumps({"text": each}) for each in texts]
    text.write_text("\n".join(lines), encoding="utf-8")
    given = {"text": (str(text),), "steps": 4, "training": {**TRAINING, "context": 32}}
    small = {"name": name, "width": 16, "layers": 1, "heads": 2, "context": 32, "dropout": 0.0}
    new = {**given, "model": small, "tokenizer": tokenizer, "objective": objective, "out": tmp_path / "one"}
    *_, one = all_events(build_train_recipe(new))
    more = {"objective": objective} if shape == "both losses" else {}  # the others are the default
    _, *_, two = all_events(build_train_recipe({**given, "init": str(tmp_path / "one"), "out": tmp_path / "two"}, more))
    assert isinstance(one, TrainingResult)
    assert isinstance(two, TrainingResult)
    assert two.objective == objective
    assert two.nats_per_token < one.nats_per_token
    first = checkpoint.load_checkpoint(checkpoint.list_checkpoints(tmp_path / "two")[0]).model
    assert all(torch.equal(first[name], value) for name, value in weights(tmp_path / "one").items())
    beside = all_events(
        build_train_recipe({**given, "init": str(tmp_path / "one"), "out": tmp_path / "three", **LORA}, more)
    )[-1]
    assert isinstance(beside, TrainingResult)
    assert beside.objective == objective
    assert {key.rpartition(".")[2] for key in last_checkpoint_weights(tmp_path / "three")} == {"lora_a", "lora_b"}
    wrong = cli("train", text, "--init", tmp_path / "one", "--objective", "causal", "--out", tmp_path / "four")
    assert wrong.status == 1
    assert "objective is causal, which does not train" in wrong.last
    if shape == "encoder":
        wrong = cli(
            *("train", text, "--init", tmp_path / "one", "--objective", "mlm+nsp"),
            *("--out", tmp_path / "four"),
        )
        assert wrong.status == 1
        assert "set objective to mlm, or train a new one: --model bert-mini" in wrong.last
    assert not (tmp_path / "four").exists()


def test_wider_models_are_fine_tuned_at_lower_rates_unless_one_is_set() -> None:
    defaults = build_train_recipe({"text": ("a",), "init": "m"}).training
    rates = {
        width: scale_learning_rates(None, SimpleNamespace(width=width), defaults).learning_rate
        for width in (16, 192, 768)
    }
    assert rates == {16: 2**-10, 192: 2**-10, 768: 2**-12}
    assert scale_learning_rates(None, SimpleNamespace(), defaults).learning_rate == 2**-10  # a family without a width
    by_hand = build_train_recipe({"text": ("a",), "init": "m", "training.learning_rate": 1e-3}).training
    assert scale_learning_rates(None, SimpleNamespace(width=768), by_hand).learning_rate == 1e-3


def test_fine_tuning_of_a_wide_model_resumes_at_its_own_rate(tmp_path: Path) -> None:
    text, small = tmp_path / "text.txt", {"name": "gpt2", "width": 384, "layers": 1, "heads": 2, "context": 16}
    text.write_text(words(), encoding="utf-8")
    quick = {key: value for key, value in TRAINING.items() if key != "learning_rate"}
    given = {"text": (str(text),), "training": quick, "steps": 1}
    all_events(build_train_recipe({**given, "model": small, "tokenizer": "characters", "out": tmp_path / "one"}))
    more = {**given, "init": str(tmp_path / "one"), "out": tmp_path / "two"}
    all_events(build_train_recipe(more))
    assert read_yaml(tmp_path / "two" / "config.yaml")["training"]["learning_rate"] == 2**-11
    finished = all_events(build_train_recipe({**more, "steps": 2, "resume": True}))[-1]
    assert isinstance(finished, TrainingResult)
    assert finished.steps == 2


def test_lora_improves_the_model_and_keeps_the_base_weights(made: Any, adapted: Any) -> None:
    out, events = adapted
    prepared, *_, finished = events
    assert isinstance(prepared, RunPrepared)
    assert isinstance(finished, TrainingResult)
    # 1 layer; query 16 → 16 and up 16 → 40: 2 · (16 + 16) + 2 · (16 + 40)
    assert f"{2 * 32 + 2 * 56} LoRA parameters of rank 2" in prepared.model_summary
    assert finished.parameters == made.said["parameters"]
    assert finished.nats_per_token < made.said["nats_per_token"]
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "checksums.json", "clearstory.json"),
        *("generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    ]
    assert {name.rpartition(".")[2] for name in last_checkpoint_weights(out)} == {"lora_a", "lora_b"}
    base, both = weights(made.run), weights(out)
    changed = {name for name, value in base.items() if not torch.equal(value, both[name])}
    assert changed == {"blocks.0.attention.query.weight", "blocks.0.feed_forward.up.weight"}


def test_an_adapter_opens_wherever_a_model_does(
    made: Any, adapted: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, _ = adapted
    held_out = tmp_path / "a.txt"
    held_out.write_text(words(100, seed=3), encoding="utf-8")
    bits = [clearstory.evaluate(path, str(held_out)).bits_per_byte for path in (out, out / "model")]
    assert bits[0] == bits[1]
    answer = cli("generate", out, "the", "--max-tokens", "4", "--json")
    assert answer.status == 0
    # A checkpoint opens too; the last one of this run is its best.
    last = weights(checkpoint.list_checkpoints(out)[-1])
    assert all(torch.equal(last[name], value) for name, value in weights(out).items())
    answer = cli("convert", out, tmp_path / "merged", "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["max_nats_difference"] == 0
    assert all(torch.equal(value, weights(tmp_path / "merged")[name]) for name, value in weights(out).items())
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    # A merged model can be fine-tuned.
    assert all_events(fine_tune(made.text, tmp_path / "merged", tmp_path / "again", **LORA))


@pytest.mark.parametrize("more", [{"training.gradient_accumulation_steps": 2}, LORA], ids=["whole", "lora"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(made: Any, tmp_path: Path, more: dict[str, Any]) -> None:
    all_events(fine_tune(made.text, made.run, tmp_path / "alone", **more))
    stopped_after(3, fine_tune(made.text, made.run, tmp_path / "stopped", **more))
    assert not (tmp_path / "stopped" / "curve.svg").exists()
    all_events(build_train_recipe({"out": tmp_path / "stopped", "resume": True}))
    assert metrics_without_times(tmp_path / "stopped") == metrics_without_times(tmp_path / "alone")
    ends = last_checkpoint_weights(tmp_path / "alone"), last_checkpoint_weights(tmp_path / "stopped")
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    ends = weights(tmp_path / "alone"), weights(tmp_path / "stopped")
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_the_best_adapter_is_kept(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_losses(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    more = {"training.eval_steps": 2, "training.save_steps": 2, "training.keep_checkpoints": 9}
    events = all_events(fine_tune(made.text, made.run, tmp_path / "run", **LORA, **more))
    assert [event.is_best for event in events if isinstance(event, Evaluated)] == [True, False, False, False]
    best = weights(tmp_path / "run" / "checkpoints" / "step-000002")
    assert all(torch.equal(value, best[name]) for name, value in weights(tmp_path / "run").items())
    assert isinstance(events[-1], TrainingResult)
    held = clearstory.evaluate(tmp_path / "run", str(made.text), windows="blocks")
    assert held.bits_per_byte is not None


def test_a_model_that_changed_is_not_resumed_from(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.run / "model", tmp_path / "base")
    stopped_after(3, fine_tune(made.text, tmp_path / "base", tmp_path / "run", **LORA))
    opened = open_model(tmp_path / "base")
    with torch.no_grad():
        opened.model.embedding.weight.add_(1)
    save_model(tmp_path / "base", opened.model, opened.tokenizer, opened.card, overwrite=True)
    with pytest.raises(CheckpointMismatch, match=r"the initial model of the run in .* has changed"):
        all_events(build_train_recipe({"out": tmp_path / "run", "resume": True}))


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"model": "gpt2"}, BadSetting, "model is for a new model, but init continues"),
        ({"parameters": 1000}, BadSetting, "parameters is for a new model"),
        ({"tokenizer": "bytes"}, BadSetting, "tokenizer is for a new model"),
        ({"training.initialization": "zero"}, BadSetting, "initialization is for a new model"),
        ({"lora.alpha": 3.0}, BadSetting, "lora.rank is 0, so LoRA is off"),
        ({"lora.rank": 2, "init": None}, BadSetting, "lora.rank is 2, .* give one with --init"),
        ({"lora.rank": 2, "lora.targets": ["querry"]}, UnknownName, "did you mean 'query'"),
        ({"lora.rank": 2, "lora.dropout": 1.5}, BadSetting, "lora.dropout is 1.5"),
        ({"init": "nowhere"}, BadInput, "there is no folder nowhere"),
        ({"training.context": 9}, BadSetting, "cannot be trained on sequences longer than its context"),
    ],
)
def test_contradicting_settings_are_refused(
    made: Any, tmp_path: Path, more: dict[str, Any], error: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        all_events(fine_tune(made.text, made.run, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_fine_tuned_say_why(made: Any, adapted: Any, tmp_path: Path) -> None:
    all_events(
        build_train_recipe(
            {"text": (str(made.text),), "model": "ngram", "tokenizer": "bytes", "out": tmp_path / "ngram"}
        )
    )
    with pytest.raises(CannotDo, match=r"\(ngram\) was fitted by counting"):
        all_events(fine_tune(made.text, tmp_path / "ngram", tmp_path / "run"))
    save_model(tmp_path / "mute", open_model(made.run).model, None, ModelCard())
    with pytest.raises(BadInput, match=r"has no tokenizer.json"):
        all_events(fine_tune(made.text, tmp_path / "mute", tmp_path / "run"))
    out, _ = adapted
    with pytest.raises(BadSetting, match="adapters cannot be stacked; merge it first: clearstory convert"):
        all_events(fine_tune(made.text, out, tmp_path / "run", **LORA))
    with pytest.raises(BadSetting, match=r"would overwrite its initial model .*model"):
        all_events(fine_tune(made.text, out, out, overwrite=True))


def test_on_the_command_line(made: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    flags = [f"--training.{key}={value}" for key, value in TRAINING.items()]
    said = ["train", made.text, "--init", made.run, "--out", tmp_path / "run", "--steps", "4", "--json", *flags]
    answer = cli(*said, "--lora.rank", "2", "--lora.targets", "value")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["folder"] == str(tmp_path / "run" / "model")
    assert "LoRA parameters of rank 2" in answer.err
