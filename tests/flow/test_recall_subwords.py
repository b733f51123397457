"""`recall` with a subword tokenizer, end to end: trained, resumed, opened, evaluated, and its tables' size."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

import clearstory
from clearstory.models.base import TokenBatch
from clearstory.recipes.settings.training import build_train_recipe
from trained import all_events, contents, metrics_without_times


def many_words(folder: Path) -> Path:
    """A text of some thousand different words."""
    rng = random.Random(0)
    syllables = [first + second for first in "bdfglmnprst" for second in ("a", "e", "i", "o", "u", "an", "or")]
    known = ["".join(rng.choices(syllables, k=3)) for _ in range(3000)]
    file = folder / "words.txt"
    file.write_text(" ".join(rng.choices(known, k=12_000)), encoding="utf-8")
    return file


def recall_run(text: Path, out: Path, **more: Any) -> Any:
    """Four steps on a text whose subwords are too many for a logit each."""
    settings = {
        "text": (str(text),), "out": out, "model": "recall", "model.recall_rows": 512, "model.width": 32,
        "tokenizer": "bpe:1100", "steps": 4, "parameters": 200_000, "training.context": 16, "training.eval_steps": 2,
        "training.eval_tokens": 64, "training.schedule": "constant", "training.warmup_steps": 0,
        "training.precision": "fp32", "training.device": "cpu", "training.threads": 1,
    }  # fmt: skip
    return build_train_recipe(settings, more)


def test_recall_for_subwords_is_trained_resumed_and_opened(tmp_path: Path) -> None:
    text = many_words(tmp_path)
    all_events(recall_run(text, tmp_path / "alone"))
    all_events(recall_run(text, tmp_path / "again", steps=2))
    all_events(recall_run(text, tmp_path / "again", resume=True))
    rows, again = (metrics_without_times(tmp_path / name) for name in ("alone", "again"))
    losses = [[row["loss"] for row in each if row["kind"] == "step"] for each in (rows, again)]
    assert losses[0] == losses[1]
    weights = [contents(tmp_path / name / "model")["model.safetensors"] for name in ("alone", "again")]
    assert weights[0] == weights[1]

    opened = clearstory.open(tmp_path / "alone")
    model: Any = opened.model
    assert (model.config.recall_dim, model.config.recall_rows, model.vocab) == (64, 512, 1100)
    assert model.recall.table.weight.shape == (3 * 512, 64)
    assert model.recall.table.weight.abs().sum() > 0
    assert opened.tokenizer is not None
    ids = torch.tensor([opened.tokenizer.encode("bada nano gimi rupo")])
    with torch.no_grad():
        whole = model.logits(model.forward(TokenBatch(ids))[0])[0, -1]
        state = model.init_state()
        for id in ids[0]:
            hidden, state = model.forward(TokenBatch(id[None, None]), state)
        torch.testing.assert_close(model.logits(hidden)[0, -1], whole, rtol=1e-4, atol=1e-4)


def test_batches_are_larger_for_subwords_than_for_characters() -> None:
    batches = {
        tokenizer: build_train_recipe({"model": "recall", "tokenizer": tokenizer}).training.batch_size
        for tokenizer in (None, "characters", "bytes", "bpe:4096", "wordpiece:2048")
    }
    assert batches == {None: 8, "characters": 8, "bytes": 8, "bpe:4096": 16, "wordpiece:2048": 16}
    explicit = {"model": "recall", "tokenizer": "bpe:4096", "training.batch_size": 8}
    assert build_train_recipe(explicit).training.batch_size == 8
