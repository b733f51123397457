"""Weight averaging: the mean of a model's weights over the last steps of a run. Polyak and Juditsky 1992, section 2.

With a learning rate too high to converge, weights oscillate around a minimum; their mean is nearer to it than any of
them. Merity et al. 2018, section 3, train their LSTM so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of a model's trainable parameters over the steps at which `update` was called.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(model)
    >>> for weight in (1.0, 3.0):
    ...     _ = nn.init.constant_(model.weight, weight)
    ...     average.update()
    >>> with average.applied():
    ...     model.weight.item()
    2.0
    >>> model.weight.item()
    3.0
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.means: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the mean."""
        self.count += 1
        if self.count == 1:
            self.means = {name: p.detach().clone() for name, p in self.parameters.items()}
        else:
            torch._foreach_lerp_(list(self.means.values()), list(self.parameters.values()), 1 / self.count)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the model has the mean weights, if there are any."""
        current = {name: p.data for name, p in self.parameters.items()}
        for name, mean in self.means.items():
            self.parameters[name].data = mean
        try:
            yield
        finally:
            for name, data in current.items():
                self.parameters[name].data = data

    def tensors(self) -> dict[str, Tensor]:
        """The means by parameter name."""
        return self.means

    def load(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Restore what `tensors` returned. Tensors are copied, so that the file they came from may be deleted."""
        self.means = {name: tensors[name].to(p.device, copy=True) for name, p in self.parameters.items() if count}
        self.count = count
