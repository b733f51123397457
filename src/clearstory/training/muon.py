"""Muon: momentum whose update is made orthogonal, for the matrices inside a network.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon), whose scale √max(1, R/C) is kept. torch's own Muon
orthogonalises in bf16 only, 19 to 28 times slower than fp32 on a processor without bf16 arithmetic; this one does so in
either, all matrices of one shape in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from clearstory.training.optimizers import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that pushes singular values towards 1: steepest at 0, not monotone near 1. Jordan et al. 2024."""


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Each (R, C) matrix of a batch with its singular values pushed into about [0.7, 1.2]: Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(-2).norm(dim=-1).clamp(min=1e-7)[..., None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """theta <- theta - lr · (√max(1, R/C) · orthogonal(momentum) + decay · theta), for matrices only.

    `arithmetic` is that of the orthogonalisation alone: bf16 where a processor multiplies it faster.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        arithmetic: torch.dtype | None = None,
    ) -> None:
        super().__init__([{"params": params, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}])
        self.arithmetic = arithmetic

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.groups:
            for params in by_shape(group["params"]).values():
                self.update(params, group)

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """All matrices of one shape together."""
        grads = [p.grad for p in params if p.grad is not None]
        momenta = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            momenta.append(state["momentum_buffer"])
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        # Nesterov: look where the momentum is about to go.
        ahead = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"]))
        scale = max(1.0, params[0].shape[0] / params[0].shape[1]) ** 0.5
        updates = orthogonalize(ahead.to(self.arithmetic or ahead.dtype)).to(ahead.dtype)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(updates.unbind()), alpha=-group["lr"] * scale)


def by_shape(params: Iterable[Tensor]) -> dict[tuple[int, ...], list[Tensor]]:
    """Parameters with a gradient, grouped by shape, in order."""
    groups: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for p in params:
        if p.grad is not None:
            groups[tuple(p.shape)].append(p)
    return groups
