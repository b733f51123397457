"""Loss and accuracy of choices between continuations, from their log-likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.metrics import Floats

Prediction = tuple[float, ...]
"""Log-likelihoods of the choices of a question, in nats."""


class AnsweredRow(Protocol):
    """The parts of a question that accuracy needs."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of characters of each choice."""

    @property
    def answer(self) -> int:
        """Index of the right choice."""


def question_loss(
    per_token: Float[Tensor, "Q C"], is_choice: Bool[Tensor, "Q C"], answers: Int[Tensor, "Q"]
) -> Float[Tensor, "Q"]:
    """−ln softmax over the choices' log-likelihoods per token at the right one, plus its nats per token."""
    scores = (-per_token).masked_fill(~is_choice, -torch.inf)
    return F.cross_entropy(scores, answers, reduction="none") + per_token.gather(1, answers[:, None]).squeeze(1)


def right_choices(predictions: Sequence[Prediction], rows: Sequence[AnsweredRow]) -> npt.NDArray[np.float64]:
    """Whether the choice for each question is correct, by total log-likelihood and by log-likelihood per character, (N,
    2).
    """
    found = np.zeros((len(rows), 2))
    for index, (prediction, row) in enumerate(zip(predictions, rows, strict=True)):
        totals = np.array(prediction)
        found[index] = totals.argmax() == row.answer, (totals / np.array(row.sizes)).argmax() == row.answer
    return found


def choice_metrics(right: Floats, _: Any) -> dict[str, float]:
    """Accuracy by total log-likelihood and by log-likelihood per character."""
    return {"acc": float(right[:, 0].mean()), "acc_norm": float(right[:, 1].mean())}
