"""Average: the mean of a model's weights over the last part of a run. Polyak and Juditsky 1992, section 2.

Steps that are too large to settle still circle around a place; their mean is nearer to it than any of them. Merity et
al. 2018, section 3, train their LSTM so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of a model's parameters over the steps that were added.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = Average(model)
    >>> for weight in (1.0, 3.0):
    ...     _ = nn.init.constant_(model.weight, weight)
    ...     average.add()
    >>> with average.shown():
    ...     model.weight.item()
    2.0
    >>> model.weight.item()
    3.0
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.means: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        """The weights as they are now belong to it."""
        self.count += 1
        if self.count == 1:
            self.means = {name: each.detach().clone() for name, each in self.parameters.items()}
        else:
            torch._foreach_lerp_(list(self.means.values()), list(self.parameters.values()), 1 / self.count)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts the model has the mean weights, if there are any."""
        last = {name: each.data for name, each in self.parameters.items()}
        for name, mean in self.means.items():
            self.parameters[name].data = mean
        try:
            yield
        finally:
            for name, data in last.items():
                self.parameters[name].data = data

    def tensors(self) -> dict[str, Tensor]:
        """The means by the names of their parameters."""
        return self.means

    def load(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """The reverse of `tensors`; copies, so that the file they came from may go."""
        self.means = {name: tensors[name].to(each.device, copy=True) for name, each in self.parameters.items() if count}
        self.count = count
