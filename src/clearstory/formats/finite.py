"""Non-finite weights: a single one makes every output of a model NaN, so such models are not opened or saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from clearstory.errors import CorruptFile, Diverged
from clearstory.models.config import Config

FAMILIES_WITH_LOG_ZERO = frozenset({"ngram", "hmm", "mixture"})
"""Families of log-probabilities, in which -inf is the logarithm of 0."""


def non_finite_value(tensor: Tensor, *, log_probabilities: bool = False) -> float | None:
    """A value of a tensor that is not finite, or None. With `log_probabilities`, -inf is allowed.

    >>> import torch
    >>> non_finite_value(torch.tensor([1.0, float("nan")]))
    nan
    """
    if not tensor.dtype.is_floating_point or tensor.is_meta:
        return None
    # One pass without temporary memory: the sum is finite unless a value is not, or unless it overflows.
    if bool(tensor.sum().isfinite()):
        return None
    finite = tensor.isfinite()
    if log_probabilities:
        finite |= tensor.isneginf()
    wrong = tensor[~finite]
    return float(wrong.flatten()[0]) if wrong.numel() else None


def finite_check(path: Path, config: Config, *, skip: bool = False) -> Callable[[str, Tensor], Tensor]:
    """A function of a weight's name and value that returns the value, and raises CorruptFile if it is not finite.

    `skip`: the file has not changed since it was written, and weights were finite then.
    """
    if skip:
        return lambda name, tensor: tensor
    log_probabilities = config.family in FAMILIES_WITH_LOG_ZERO

    def check(name: str, tensor: Tensor) -> Tensor:
        value = non_finite_value(tensor, log_probabilities=log_probabilities)
        if value is not None:
            raise CorruptFile(
                f"{path} holds {name} with the value {value}, so that every output of this model would be NaN; the "
                "file is damaged or training diverged: copy it again, or use an earlier checkpoint"
            )
        return tensor

    return check


def check_finite_to_save(weights: Iterable[tuple[str, Tensor]], config: Config) -> None:
    """Raise Diverged for weights that are not finite."""
    for name, tensor in weights:
        value = non_finite_value(tensor, log_probabilities=config.family in FAMILIES_WITH_LOG_ZERO)
        if value is not None:
            raise Diverged(
                f"{name} has the value {value}, so the model is not saved; training diverged: lower "
                "--training.learning_rate, or resume from an earlier checkpoint"
            )
