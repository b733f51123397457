"""Update: a rule that moves parameters along their gradients, and what it remembers of each.

`torch.optim.Optimizer` would do, but making one imports torch._dynamo, about two seconds of every training's start. The
arithmetic of AdamW is torch's all the same: its functional form needs no Optimizer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class Optimizer:
    """Groups of parameters with their settings (`lr` among them), and the state of each parameter by name."""

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.groups = [{**group, "params": list(group["params"])} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        raise NotImplementedError

    @property
    def parameters(self) -> Iterable[Tensor]:
        """All that it moves."""
        return (p for group in self.groups for p in group["params"])

    def drop_gradients(self) -> None:
        """Make room for the next step's."""
        for p in self.parameters:
            p.grad = None


class AdamW(Optimizer):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019, algorithm 2; torch's fused kernels."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__([{"lr": lr, **group} for group in groups])
        self.betas = betas
        self.eps = eps

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), dtype=torch.float32, device=p.device),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            states = [self.state[p] for p in params]
            adamw(
                params,
                [p.grad for p in params if p.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )


class SGD(Optimizer):
    """theta <- theta - lr · (gradient + decay · theta). Robbins and Monro 1951; remembers nothing."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        super().__init__([{"lr": lr, **group} for group in groups])

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, [p.grad for p in params if p.grad is not None], alpha=-group["lr"])
