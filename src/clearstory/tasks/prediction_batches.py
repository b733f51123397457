"""Batches of predictions: rows of similar length, up to a number of tokens, in one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.heads import SequenceClassifier

PREDICTION_TOKENS = 8192
"""Tokens of a batch of predictions, padding included."""


def window_outputs(
    model: nn.Module,
    rows: Sequence[Any],
    batch_size: int | None = None,
    output: Callable[[TokenBatch, Tensor | None], Tensor] | None = None,
) -> Float[Tensor, "N labels"]:
    """Logits of each row, in order, computed in batches of rows of similar length, on the CPU in float64.

    A row has `ids` and `token_types`; a batch has at most `batch_size` rows and about PREDICTION_TOKENS tokens.
    `output` computes something else than logits from tokens and token types.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    outputs: dict[int, Tensor] = {}
    output = output or cast(SequenceClassifier, model).class_logits
    with inference_mode(model):
        for batch in batches_of_tokens(order, rows, batch_size or len(rows)):
            tokens = TokenBatch.from_sequences([rows[index].ids for index in batch], device)
            types = None
            if any(rows[index].token_types for index in batch):
                sequences = [rows[index].token_types or (0,) * len(rows[index].ids) for index in batch]
                types = TokenBatch.from_sequences(sequences, device).ids
            values = output(tokens, types).double().cpu()
            outputs |= dict(zip(batch, values, strict=True))
    return torch.stack([outputs[index] for index in range(len(rows))])


def batches_of_tokens(order: Iterable[int], rows: Sequence[Any], batch_size: int) -> list[list[int]]:
    """Row indices, which are sorted by length, in batches of about PREDICTION_TOKENS tokens and at most `batch_size`
    rows.
    """
    batches: list[list[int]] = []
    for index in order:
        tokens = (len(batches[-1]) + 1) * len(rows[index].ids) if batches else PREDICTION_TOKENS + 1
        if tokens <= PREDICTION_TOKENS and len(batches[-1]) < batch_size:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
