"""Optimizer: which parameters are moved by what, and by how much of the schedule's rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearstory.training.adagrad import RowAdagrad
from clearstory.training.muon import Muon
from clearstory.training.settings import TrainingSettings
from clearstory.training.optimizers import SGD, AdamW, Optimizer

INSIDE = ("blocks.", "layers.", "encoder.blocks.", "decoder.blocks.")
"""What the names of weights begin with that lie between a model's embedding and its unembedding."""


class OptimizerSet:
    """The optimizers of a run, moved together; each parameter belongs to exactly one.

    AdamW (Loshchilov and Hutter 2019) moves everything, or with `optimizer=muon` all but the matrices inside blocks and
    layers, or with `optimizer=sgd` nothing; tables with sparse gradients are moved by row-wise Adagrad.
    Weight decay pulls matrices only: norms' gains and biases have a place of rest that is not zero.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        tables = {m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
        muon = settings.optimizer == "muon"
        inner = [p for name, p in named.items() if muon and p.ndim == 2 and name.startswith(INSIDE)]
        rest = [p for p in named.values() if p not in tables and not any(p is each for each in inner)]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        first: Optimizer = SGD(groups, settings.learning_rate)
        if settings.optimizer != "sgd":
            first = AdamW(groups, settings.learning_rate, (settings.beta1, settings.beta2), settings.epsilon)
        self.all: list[tuple[Optimizer, float, bool]] = [(first, settings.learning_rate, True)]
        if inner:
            dtype = torch.bfloat16 if settings.precision == "bf16" else None
            by_muon = Muon(inner, settings.muon_learning_rate, weight_decay=settings.weight_decay, arithmetic=dtype)
            self.all.append((by_muon, settings.muon_learning_rate, True))
        if tables:
            # Adagrad's steps shrink by themselves: it follows no schedule.
            self.all.append((RowAdagrad(tables, settings.recall_learning_rate), settings.recall_learning_rate, False))

    def step(self, share: float) -> None:
        """One update at this share of each optimizer's peak rate; gradients are dropped afterwards."""
        for update, peak, scheduled in self.all:
            for group in update.groups:
                group["lr"] = peak * share if scheduled else peak
            update.step()
            update.drop_gradients()

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What the optimizers remember of each parameter, by the parameter's name."""
        names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        return {
            f"{names[p]}.{key}": value
            for update, _, _ in self.all
            for p, state in update.state.items()
            for key, value in state.items()
        }

    def load(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """The reverse of `tensors`; copies, so that the file they came from may go."""
        owner = {p: update for update, _, _ in self.all for p in update.parameters}
        named = dict(model.named_parameters())
        for key, value in tensors.items():
            name, _, what = key.rpartition(".")
            owner[named[name]].state[named[name]][what] = value.to(named[name].device, copy=True)

    def forget(self) -> None:
        """As if no step had been taken."""
        for update, _, _ in self.all:
            update.state.clear()
