"""Fine-tuning steps equal those of transformers' classes under torch's AdamW: the same losses and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.head_config import ProblemType
from clearstory.models.heads import SequenceClassifier
from clearstory.models.transformer.presets import MINILM
from clearstory.tasks.base import EncodedSplit, TaskObjective
from clearstory.tasks.classify import Classify
from clearstory.tasks.data.examples import LabeledText
from clearstory.tasks.text_windows import TextWindows
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

transformers = pytest.importorskip("transformers")

TEXTS = ["a good film", "a bad song with a long name", "fine", "a poor book", "great walk", "awful meal at night"]
STEPS, RATE, DECAY = 4, 1e-2, 0.1


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_steps_are_those_of_transformers(problem: ProblemType, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("wordpiece:60", TEXTS)
    config = replace(
        MINILM, pooler=True, dropout=0.0, vocab=tokenizer.vocab, context=16, width=16, layers=2, heads=2, kv_heads=2,
        head_dim=8, intermediate_size=32,
    )  # fmt: skip
    labels = ("value",) if problem == "regression" else ("a", "b", "c")
    model = SequenceClassifier(build(config, seed=1), labels, problem_type=problem, classifier_dropout=0.0)
    save_model(tmp_path / "model", model, tokenizer, ModelCard(name="m", family="transformer", parameters=0))
    theirs: Any = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").train()
    assert theirs.config.problem_type == problem

    task = Classify(labels, problem, TextWindows(tokenizer, encoder=True, context=16))
    examples = [
        LabeledText(text, labels=labels[at % 3 : at % 3 + (1 if problem.startswith("single") else 2)], value=at / 2)
        for at, text in enumerate(TEXTS)
    ]
    settings = TrainingSettings(
        batch_size=3, learning_rate=RATE, weight_decay=DECAY, beta2=0.999, schedule="constant", warmup_steps=0,
        gradient_clip=0.0, stateful=False, matmul="mkl",
    )  # fmt: skip
    trainer = Trainer(model, TaskObjective(task), cast(Any, EncodedSplit(task.encode(examples))), settings, steps=STEPS)
    plain = [p for p in theirs.parameters() if p.ndim < 2]
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
                                  lr=RATE, betas=(0.9, 0.999))  # fmt: skip
    for step in range(STEPS):
        batch: Any = trainer.batches.batch(step)
        lengths = batch.tokens.last_positions() + 1
        mask = (torch.arange(batch.tokens.ids.shape[1]) < lengths[:, None]).long()
        targets = batch.targets[:, 0] if problem == "regression" else batch.targets
        loss = theirs(input_ids=batch.tokens.ids, attention_mask=mask, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert trainer.train_step().loss == pytest.approx(loss.item(), rel=1e-4)
    for ours, their in ((model.classifier, theirs.classifier), (model.pooler, theirs.bert.pooler.dense)):
        torch.testing.assert_close(ours.weight, their.weight, rtol=2e-3, atol=2e-4)
