"""Rows of a decoder of which only some tokens are predicted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from clearstory.models.base import TokenBatch
from clearstory.models.inference_model import inference_model
from clearstory.models.lora import adapt
from clearstory.tasks import causal_rows
from clearstory.tasks.causal_rows import CausalRow, causal_batch, causal_loss, count_predicted, row_nats
from tiny import TINY_CLEAR, TINY_GPT2, TINY_HMM, TINY_LSTM, TINY_RECALL, shaken

ROWS = [
    CausalRow((1, 2, 3, 4, 5), (False, False, True, False, True), 0),
    CausalRow((3, 4), (False, True), 1),
    CausalRow((3,), (False,), 2),
    CausalRow((7,) * 9, (False,) * 9, 3),
]

CONFIGS: dict[str, Any] = {
    "rotary": TINY_CLEAR,
    "untied": replace(TINY_GPT2, tie_embeddings=False),
    "lstm": TINY_LSTM,
    "hashed n-grams": TINY_RECALL,
    "hmm": TINY_HMM,
}


@torch.no_grad()
def nats_one_by_one(model: Any, row: CausalRow) -> float:
    """-Σ log p of the predicted tokens, from the logits of the row alone."""
    hidden, _ = model.forward(TokenBatch.from_sequences([row.ids]))
    log_probs = model.logits(hidden)[0].log_softmax(-1)
    return -sum(float(log_probs[at - 1, row.ids[at]]) for at in range(1, row.length) if row.predicted[at])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nats_and_loss_of_rows_are_those_of_each_row_alone(config: Any) -> None:
    model = shaken(config)
    alone = [nats_one_by_one(model, row) for row in ROWS]
    nats, counts = zip(*row_nats(model, ROWS), strict=True)
    assert nats == pytest.approx(alone)
    assert counts == (2, 1, 0, 0)
    batch = causal_batch(ROWS)
    term = causal_loss(model, batch)["target"]
    assert (float(term.total.detach()), term.count) == (pytest.approx(sum(alone)), 3)
    assert count_predicted(batch) == {"target": 3}


def test_the_view_for_inference_has_the_same_nats() -> None:
    model = shaken(TINY_CLEAR).float()
    nats = [nats for nats, _ in row_nats(model, ROWS)]
    assert [nats for nats, _ in row_nats(cast(Any, inference_model(cast(Any, model), "fp32")), ROWS)] == pytest.approx(
        nats, rel=1e-4
    )


def test_gradients_are_those_of_the_predicted_tokens_with_and_without_label_smoothing() -> None:
    model: Any = shaken(TINY_CLEAR)
    batch, weights = causal_batch(ROWS), list(model.parameters())
    for smoothing in (0.0, 0.1):
        ours = torch.autograd.grad(causal_loss(model, batch, smoothing)["target"].total, weights)
        logits = model.logits(model.forward(batch.tokens)[0]).flatten(0, 1)
        dense = torch.nn.functional.cross_entropy(
            logits, batch.targets.flatten(), reduction="sum", label_smoothing=smoothing
        )
        torch.testing.assert_close(ours, torch.autograd.grad(dense, weights))


def test_rows_train_lora_alone_and_a_batch_without_targets_changes_nothing() -> None:
    model: Any = adapt(shaken(TINY_CLEAR), 2, seed=1)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(causal_loss(model, causal_batch(ROWS))["target"].total, trained)
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    term = causal_loss(model, causal_batch(ROWS[2:]))["target"]
    assert (float(term.total.detach()), term.count) == (0.0, 0)
    assert not any(bool(gradient.any()) for gradient in torch.autograd.grad(term.total, trained))


def test_a_step_reads_long_rows_in_micro_batches_of_limited_size_with_the_same_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(causal_rows, "MICRO_BATCH_TOKENS", 16)
    batch, model = causal_batch(ROWS), shaken(TINY_CLEAR)  # four rows of eight tokens with their padding
    parts = batch.split(1)
    assert [len(part.tokens.ids) for part in parts] == [2, 2]
    assert len(batch.split(4)) == 4
    total = sum(float(causal_loss(model, part)["target"].total.detach()) for part in parts)
    assert total == pytest.approx(float(causal_loss(model, batch)["target"].total.detach()))
