"""Integrated gradients: a number of a model's output as a sum over the tokens of its input. Sundararajan et al. 2017.

The path is the straight line from the mean embedding of the vocabulary to the embeddings of the text, and the
attribution of a token is the integral of its gradient along the path, eq. 1:

    a_t = (x_t − x̄) · ∫ ∂F/∂x_t (x̄ + α (x − x̄)) dα          Σ_t a_t = F(x) − F(x̄)

Special tokens keep their embeddings. The integral is computed by Gauss-Legendre quadrature over intervals of α. The sum
over an interval must be F at its end minus F at its start, so the intervals with the largest error are halved until the
total error is small.

Many decoders attend to the first token regardless of its content, and this attention starts abruptly along the path. If
the straight line does not converge, the first token is moved before all others, and its attribution is F after this
step minus F before it; the others then move in a straight line. Any path from x̄ to x has the same sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearstory.errors import CannotDo
from clearstory.lens.hooks.activations import embedding_module, model_device
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.heads import ClassificationHead

POINTS = 8
"""Points of an interval."""

MAX_POINTS = (144, 576)
"""Points after which the straight line, and that without the first token, are given up."""

TOLERANCE = 1e-3
"""Largest sum of the intervals' errors, as a share of the difference between the text and the baseline."""

SMALLEST_DIFFERENCE = 0.1
"""A smaller difference, in logits, need not be met by a smaller error."""

POINTS_AT_ONCE = 18

Score = Callable[[Tensor], Tensor]
"""From the logits of labels, (B, ..., labels), to the attributed number of each, (B,)."""


class Attribution(NamedTuple):
    """The attribution of each token (T,), the number of the text, that of the baseline, and whether the first token
    moved before the others.
    """

    tokens: Float[Tensor, "T"]
    value: float
    baseline: float
    first_alone: bool


class Integral(NamedTuple):
    """The credit of each token (T,), the numbers at both ends of a path, and the sum of the intervals' errors."""

    tokens: Float[Tensor, "T"]
    start: float
    end: float
    error: float

    @property
    def converged(self) -> bool:
        """Whether the credits sum to the difference of the ends."""
        return self.error <= TOLERANCE * max(abs(self.end - self.start), SMALLEST_DIFFERENCE)


def integrated_gradients(
    network: ClassificationHead, ids: Sequence[int], special: Sequence[bool], score: Score
) -> Attribution:
    """The attribution of a number to each token; special tokens have no attribution.

    Raises CannotDo if the integral does not converge on either path.
    """
    own = ~torch.tensor(special, device=model_device(network))
    with frozen(network):
        whole = integrate(EmbeddingPath(network, ids, own, score), MAX_POINTS[0])
        if whole.converged:
            return Attribution(whole.tokens, whole.end, whole.start, first_alone=False)
        first = int(own.nonzero()[0])
        rest = own.clone()
        rest[first] = False
        others = integrate(EmbeddingPath(network, ids, rest, score), MAX_POINTS[1])
        if others.converged:
            others.tokens[first] = others.start - whole.start
            return Attribution(others.tokens, others.end, whole.start, first_alone=True)
    raise CannotDo(
        f"the integral of the gradients did not converge in {sum(MAX_POINTS)} points: the logits differ by "
        f"{whole.end - whole.start:.4g}, and the attributions miss that by up to {min(whole.error, others.error):.4g}; "
        "the model is too nonlinear between the mean embedding and the text for integrated gradients"
    )


class EmbeddingPath:
    """The straight line on which the `moving` tokens go from the mean embedding to the text's; the other tokens have
    their own embeddings all along.
    """

    def __init__(
        self,
        network: ClassificationHead,
        ids: Sequence[int],
        moving: Bool[Tensor, "T"],
        score: Score,
    ) -> None:
        self.network, self.ids, self.moving, self.score = network, list(ids), moving, score
        self.embedding = embedding_module(network)
        weight: Any = self.embedding.weight
        self.mean: Tensor = weight.detach().mean(0)
        self.time_first = Capability.RECURRENT_STATE in network.capabilities

    def __call__(self, points: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N"]]:
        """Each token's gradient times its way, and the number, at points from 0 to 1."""
        parts = [self.at(part.to(self.mean)) for part in torch.split(points, POINTS_AT_ONCE)]
        credits, values = zip(*parts, strict=True)
        return torch.cat(credits), torch.cat(values)

    def at(self, points: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N"]]:
        """The same, in one pass."""
        state: dict[str, Tensor] = {}

        def move(_: Any, __: Any, out: Tensor) -> Tensor:
            x = (out.transpose(0, 1) if self.time_first else out).detach()
            state["way"] = torch.where(self.moving[:, None], x - self.mean, 0)
            state["inputs"] = (x - (1 - points)[:, None, None] * state["way"]).requires_grad_()
            return state["inputs"].transpose(0, 1) if self.time_first else state["inputs"]

        handle = self.embedding.register_forward_hook(move)
        try:
            tokens = TokenBatch.from_sequences([self.ids] * len(points), model_device(self.network))
            with torch.enable_grad():
                values = self.score(self.network.class_logits(tokens))
                [gradients] = torch.autograd.grad(values.sum(), state["inputs"])
        finally:
            handle.remove()
        return (gradients * state["way"]).sum(-1).double().cpu(), values.detach().double().cpu()


def integrate(path: EmbeddingPath, max_points: int) -> Integral:
    """The credits of the tokens along a path, with as many intervals as they need, or as `max_points` allow."""
    nodes, weights = (torch.from_numpy(each) / 2 for each in np.polynomial.legendre.leggauss(POINTS))
    start, end = path(torch.tensor([0.0, 1.0], dtype=torch.float64))[1].tolist()
    values = {0.0: start, 1.0: end}
    found: dict[tuple[float, float], tuple[Tensor, float]] = {}
    pending = [(0.0, 1.0)]
    computed = 0
    while True:
        middles = [(low + high) / 2 for low, high in pending]
        # The points of an interval, and its middle, where it may be halved.
        points = [
            [*(middle + (high - low) * nodes), middle] for middle, (low, high) in zip(middles, pending, strict=True)
        ]
        credits, numbers = path(torch.tensor(points, dtype=torch.float64).flatten())
        computed += credits.shape[0]
        credits = credits.view(len(pending), POINTS + 1, -1)[:, :-1]
        values.update(zip(middles, numbers.view(len(pending), -1)[:, -1].tolist(), strict=True))
        for (low, high), each in zip(pending, credits, strict=True):
            tokens = (high - low) * (weights[:, None] * each).sum(0)
            found[low, high] = tokens, abs(float(tokens.sum()) - (values[high] - values[low]))
        integral = Integral(
            torch.stack([tokens for tokens, _ in found.values()]).sum(0),
            start,
            end,
            math.fsum(error for _, error in found.values()),
        )
        if integral.converged or computed >= max_points or not math.isfinite(integral.error):
            return integral
        largest = integral.error / (2 * len(found))
        wrong = [interval for interval, (_, error) in found.items() if error > largest]
        for interval in wrong:
            del found[interval]
        pending = [part for low, high in wrong for part in ((low, (low + high) / 2), ((low + high) / 2, high))]


@contextmanager
def frozen(network: ClassificationHead) -> Iterator[None]:
    """A block in which a network computes without dropout and its weights have no gradients."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    modules = [module for module in network.modules() if module.training]
    try:
        network.eval()
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for module in modules:
            module.training = True
        for weight in trained:
            weight.requires_grad_(True)
