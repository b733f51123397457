"""Linear heads fitted to the vectors of texts: multinomial logistic regression in float64, by L-BFGS.

The first step of linear probing, then fine-tuning (Kumar et al. 2022), and the last of contrastive fine-tuning
(Tunstall et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.models.head_config import ProblemType
from clearstory.models.heads import SequenceClassifier
from clearstory.tasks.classify import Classify, TextRow
from clearstory.tasks.prediction_batches import window_outputs

INVERSE_PENALTY = 10.0
"""C of scikit-learn, for vectors of mean length 1: the loss is C · the sum over texts + ½ · the squared weights."""

MAX_ITERATIONS = 500


def sentence_vectors(model: SequenceClassifier, rows: Sequence[TextRow]) -> Float[Tensor, "N W"]:
    """The vector of each row that the classifier reads, in order, on the CPU in float64."""
    return window_outputs(model, rows, output=model.features)


def fit_linear_head(model: SequenceClassifier, task: Classify, vectors: Tensor, rows: Sequence[TextRow]) -> None:
    """Set the classifier to the regression of the rows' targets on their vectors.

    The direction of the mean vector is left out: all texts are far along it, by their lengths rather than their labels
    (Mu and Viswanath 2018). Weights along it stay 0. Vectors are divided by their mean length, and the saved weights
    include that division.
    """
    targets = task.batch(rows).targets
    scale = vectors.norm(dim=-1).mean().clamp(min=1e-12)
    mean = F.normalize(vectors.mean(0), dim=0)
    around = vectors - (vectors @ mean)[:, None] * mean
    weight, bias = fit_linear(around / scale, targets, len(task.labels), task.problem_type)
    with torch.no_grad():
        model.classifier.weight.copy_(weight / scale)
        if model.classifier.bias is not None:
            model.classifier.bias.copy_(bias)


def fit_linear(
    vectors: Float[Tensor, "N W"], targets: Tensor, labels: int, problem_type: ProblemType
) -> tuple[Float[Tensor, "labels W"], Float[Tensor, "labels"]]:
    """Weights and biases of least penalized loss: cross-entropy of one label, binary cross-entropy of several, half the
    squared error of numbers. Biases are not penalized.
    """
    weight = vectors.new_zeros(labels, vectors.shape[1]).requires_grad_()
    bias = vectors.new_zeros(labels).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def penalized_loss() -> Tensor:
        optimizer.zero_grad()
        outputs = F.linear(vectors, weight, bias)
        if problem_type == "single_label_classification":
            loss = F.cross_entropy(outputs, targets, reduction="sum")
        elif problem_type == "multi_label_classification":
            loss = F.binary_cross_entropy_with_logits(outputs, targets.double(), reduction="sum")
        else:
            loss = (outputs - targets.double()).square().sum() / 2
        total = INVERSE_PENALTY * loss + weight.square().sum() / 2
        total.backward()  # type: ignore[no-untyped-call]  # torch's
        return total

    with torch.enable_grad():
        optimizer.step(penalized_loss)  # type: ignore[no-untyped-call, unused-ignore]  # torch's
    found: tuple[Any, Any] = (weight.detach(), bias.detach())
    return found
