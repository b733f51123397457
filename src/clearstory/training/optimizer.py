"""Optimizer: which parameters are moved by what, and by how much of the schedule's rate."""

from __future__ import annotations

from torch import Tensor, nn, optim

from clearstory.training.muon import Muon
from clearstory.training.settings import TrainingSettings


class Optimizers:
    """The optimizers of a run, moved together; each parameter belongs to exactly one.

    AdamW (Loshchilov and Hutter 2019) moves everything, or with `optimizer=muon` all but the matrices inside blocks.
    Weight decay pulls matrices only: norms' gains and biases have a place of rest that is not zero.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        inner = {n for n, p in named.items() if settings.optimizer == "muon" and p.ndim == 2 and ".blocks." in f".{n}"}
        rest = {name: p for name, p in named.items() if name not in inner}
        groups = [
            {"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = (settings.beta1, settings.beta2)
        self.all: list[optim.Optimizer] = [
            optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=betas, fused=True)
        ]
        self.peaks = [settings.learning_rate]
        if inner:
            matrices = [named[name] for name in sorted(inner)]
            self.all.append(Muon(matrices, settings.muon_learning_rate, weight_decay=settings.weight_decay))
            self.peaks.append(settings.muon_learning_rate)

    def step(self, share: float) -> None:
        """One update at this share of each optimizer's peak rate; gradients are dropped afterwards."""
        for optimizer, peak in zip(self.all, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What the optimizers remember of each parameter, by the parameter's name."""
        names = {p: name for name, p in model.named_parameters()}
        return {
            f"{names[p]}.{key}": value
            for optimizer in self.all
            for p, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """The reverse of `tensors`; copies, so that the file they came from may go."""
        owner = {p: optimizer for optimizer in self.all for group in optimizer.param_groups for p in group["params"]}
        named = dict(model.named_parameters())
        for key, value in tensors.items():
            name, _, what = key.rpartition(".")
            owner[named[name]].state[named[name]][what] = value.clone()

    def forget(self) -> None:
        """As if no step had been taken."""
        for optimizer in self.all:
            optimizer.state.clear()
