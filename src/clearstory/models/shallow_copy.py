"""Shallow copies of modules: parameters are shared with the original, some submodules are replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

Replace = Callable[[str, nn.Module], nn.Module | None]
"""From a module and its name to its replacement; None to keep it."""


def shallow_copy(module: nn.Module, replace: Replace) -> Any:
    """A copy of a module that shares its parameters, without gradients, with some submodules replaced.

    The original is unchanged: parameter values are shared, but `requires_grad`, hooks and submodules are not. Where two
    submodules share a parameter, their copies do.

    >>> first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> second = shallow_copy(first, lambda name, each: nn.Tanh() if isinstance(each, nn.ReLU) else None)
    >>> second[1], second[0].weight.data_ptr() == first[0].weight.data_ptr(), second[0].weight.requires_grad
    (Tanh(), True, False)
    """
    return _copy(module, replace, "", {})


def _copy(module: nn.Module, replace: Replace, name: str, copies: dict[int, Any]) -> Any:
    """The copy of one submodule; `copies` holds those of modules and parameters already met, by their id."""
    if id(module) in copies:
        return copies[id(module)]
    other = replace(name, module)
    if other is None:
        other = copy.copy(module)
        # Hooks and buffers are held in dictionaries: shared ones would carry a change from one module to the other.
        vars(other).update({key: each.copy() for key, each in vars(module).items() if isinstance(each, dict)})
        other._parameters = {
            key: None if each is None else copies.setdefault(id(each), nn.Parameter(each.data, requires_grad=False))
            for key, each in module._parameters.items()
        }
        other._modules = {
            key: None if child is None else _copy(child, replace, f"{name}.{key}" if name else key, copies)
            for key, child in module._modules.items()
        }
    copies[id(module)] = other
    return other
