"""Twin: a module that shares its numbers with another and differs from it in some of its parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

Replace = Callable[[str, nn.Module], nn.Module | None]
"""What stands in the place of a module with this name; None where it stays."""


def shallow_copy(module: nn.Module, change: Replace) -> Any:
    """The same module with what `change` puts in the place of some of its parts, all else shared and at rest.

    The original is left alone: numbers are shared, and whether they learn, what hooks into them and what they consist
    of is not. Where two modules share a parameter, their twins do.

    >>> first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> second = shallow_copy(first, lambda name, each: nn.Tanh() if isinstance(each, nn.ReLU) else None)
    >>> second[1], second[0].weight.data_ptr() == first[0].weight.data_ptr(), second[0].weight.requires_grad
    (Tanh(), True, False)
    """
    return made(module, change, "", {})


def made(module: nn.Module, change: Replace, name: str, known: dict[int, Any]) -> Any:
    """The twin of one part; `known` holds those of modules and parameters that were met before, by their id."""
    if id(module) in known:
        return known[id(module)]
    other = change(name, module)
    if other is None:
        other = copy.copy(module)
        # Hooks and buffers are held in dictionaries: shared ones would carry a change here over there.
        vars(other).update({key: each.copy() for key, each in vars(module).items() if isinstance(each, dict)})
        other._parameters = {
            key: None if each is None else known.setdefault(id(each), nn.Parameter(each.data, requires_grad=False))
            for key, each in module._parameters.items()
        }
        other._modules = {
            key: None if child is None else made(child, change, f"{name}.{key}" if name else key, known)
            for key, child in module._modules.items()
        }
    known[id(module)] = other
    return other
