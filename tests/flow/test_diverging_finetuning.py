"""A loss that is not finite ends fine-tuning in one sentence, with no model, report or half-written file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import clearstory
from clearstory.errors import Diverged
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.presets import MINILM
from clearstory.text.train_tokenizer import train_tokenizer

WORDS = ("a", "film", "song", "good", "bad", "Ada", "Rome")
SENTENCES = [" ".join([first, second, third]) for first in WORDS for second in WORDS for third in WORDS[2:6]][:60]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are finite and whose hidden states are not, and data of each task."""
    home = tmp_path_factory.mktemp("diverging")
    tokenizer = train_tokenizer("wordpiece:60", SENTENCES)
    sizes = {"width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "intermediate_size": 32, "context": 24}
    model = build(replace(MINILM, vocab=tokenizer.vocab, **sizes), seed=1)  # type: ignore[arg-type]
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1e30 if each.ndim > 1 else 1)
    save_model(home / "overflows", model, tokenizer, ModelCard(name="overflows", family="bert", parameters=0))
    rows = [f"{text}\t{'yes' if 'good' in text else 'no'}" for text in SENTENCES]
    (home / "classify.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    tagged = ["".join(f"{w} {'NAME' if w[0].isupper() else 'WORD'}\n" for w in text.split()) for text in SENTENCES]
    (home / "tag.conll").write_text("\n".join(tagged))
    pairs = [f"{text}\t{text} too" for text in SENTENCES]
    (home / "embed.tsv").write_text("\n".join(["anchor\tpositive", *pairs]) + "\n")
    return home


OPTIONS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "lora": {"lora": {"rank": 2, "targets": ("query",)}},
    "few": {"few": 4},
    "head": {"freeze": "all"},
    "tags": {"task": "tag"},
    "vectors": {"task": "embed"},
}
TRAINING = {"threads": 1, "precision": "fp32", "device": "cpu", "batch_size": 8}


def assert_nothing_half_written(run: Path) -> None:
    """No model, no report; a checkpoint, if there is one, is complete."""
    names = {each.name for each in run.iterdir()} if run.exists() else set()
    assert not names & {"model", "report.json", "report.html"}, names
    assert not [each for each in run.rglob("*") if ".tmp" in each.name or each.name.startswith(".")], names
    for checkpoint in run.glob("checkpoints/step-*"):
        open_model(checkpoint)


@pytest.mark.parametrize("case", OPTIONS)
def test_hidden_states_that_overflow(case: str, home: Path, tmp_path: Path) -> None:
    values = {"task": "classify", **OPTIONS[case]}
    data = next(home.glob(f"{values['task']}.*"))
    with pytest.raises(Diverged, match=r"the loss became nan.*the initial weights overflow") as found:
        clearstory.finetune(home / "overflows", data, out=tmp_path / "run", steps=3, training=TRAINING, **values)
    assert len(str(found.value).splitlines()) == 1
    assert_nothing_half_written(tmp_path / "run")
