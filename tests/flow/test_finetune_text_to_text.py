"""Translate and summarize end to end: trained on pairs, scored by their texts, saved, and answering."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TINY_GPT2

import clearstory
from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow, ModelWarning
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.presets import CLEAR_TRANSLATE
from clearstory.recipes.finetuning.loop import finetune_events
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.training.events import GenerationProgress, TrainingNote, TrainingResult
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.checkpoint import load_checkpoint

Cli = Callable[..., Any]

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
TRAINING: dict[str, Any] = {
    "learning_rate": 0.01, "precision": "fp32", "threads": 1, "device": "cpu", "matmul": "mkl", "eval_steps": 4,
}  # fmt: skip
SMALL = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32, "dropout": 0.0}


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Numbers in English and in German; no two are equal."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        words = [draw.choice(list(WORDS)) for _ in range(draw.randint(1, 4))]
        found[" ".join(words)] = " ".join(WORDS[word] for word in words)
    return list(found.items())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder and a decoder, and files of pairs; no test changes them."""
    home = tmp_path_factory.mktemp("texts")
    rows = pairs(120)
    (home / "train.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    for side, name in enumerate(("dev.en", "dev.de")):
        (home / name).write_text("".join(f"{pair[side]}\n" for pair in pairs(12, seed=7)), encoding="utf-8")
    lines = [f"{source}\nTL;DR: {target}" for source, target in rows]
    tokenizer = train_tokenizer("bpe:300", lines)
    start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    configs = {
        "seq2seq": replace(CLEAR_TRANSLATE, vocab=tokenizer.vocab, context=32, decoder_start_token_id=start, **SMALL),  # type: ignore[arg-type]
        "decoder": replace(TINY_GPT2, vocab=tokenizer.vocab, context=64),
    }
    for name, config in configs.items():
        card = ModelCard(name=name, family=config.family, parameters=0)
        save_model(home / name, build(config, seed=3), tokenizer, card)
    return home


def recipe(home: Path, out: Path, model: str = "seq2seq", task: str = "translate", **more: Any) -> FinetuneRecipe:
    training = {**TRAINING, **more.pop("training", {})}
    values = {"model": str(home / model), "data": (str(home / "train.tsv"),), "task": task, "out": out, "steps": 8}
    return build_settings(FinetuneRecipe, {**values, **more, "training": training})


def run(recipe: FinetuneRecipe) -> tuple[list[Any], TrainingResult]:
    events = list(finetune_events(recipe))
    assert isinstance(events[-1], TrainingResult)
    return events, events[-1]


def test_an_encoder_decoder_is_trained_and_scored(home: Path, tmp_path: Path) -> None:
    held_out = (str(home / "dev.en"), str(home / "dev.de"))
    events, result = run(
        recipe(home, tmp_path / "run", validation=held_out, num_beams=2, max_target_length=12, max_eval_samples=5)
    )
    assert list(result.metrics) == ["bleu", "chrf", "ter", "log_likelihood"]
    assert [each.done for each in events if isinstance(each, GenerationProgress)] == [1, 2, 3, 4, 5]
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]
    assert report["examples"] == 5
    details = report["details"]
    assert details["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert details["baselines"]["copy of the source"]["scores"]["ter"] > 0
    assert len(details["examples"]) == len(details["worst_outputs"]) == 5
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert (saved["num_beams"], saved["max_new_tokens"]) == (2, 12)
    assert saved["clearstory_text_to_text"] == {"task": "translate"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "copy of the source" in page
    assert "nrefs:1" in page
    # What was scored is what the saved model translates.
    shown = details["examples"][0]
    [again] = clearstory.translate(tmp_path / "run", [shown["source"]]).texts
    assert again.text == shown["output"]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_decoder_learns_targets_after_its_prompt(rank: int, home: Path, tmp_path: Path) -> None:
    with pytest.warns(ModelWarning, match=r"sources have more than 30 tokens and are cut, the first is .*, line"):
        _, result = run(
            recipe(
                home,
                tmp_path / "run",
                "decoder",
                "summarize",
                lora={"rank": rank},
                max_source_length=30,
                truncate="source-right",
                prompt_template="{source}\nTL;DR:",
                max_eval_samples=6,
                training={"batch_tokens": 300},
            )
        )
    assert list(result.metrics)[:3] == ["rouge1", "rouge2", "rougeL"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())["validation"]["details"]
    assert set(report["baselines"]) == {"first sentence", "copy of the source"}
    saved = json.loads((result.folder / "generation_config.json").read_text())
    assert saved["clearstory_text_to_text"] == {"task": "summarize", "prompt_template": "{source}\nTL;DR:"}
    opened = open_model(result.folder)
    assert opened.generation_config.other["clearstory_text_to_text"]["task"] == "summarize"
