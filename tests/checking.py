"""The checker that jaxtyping calls for every function with a signature while tests run: beartype, with allowances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, get_args

from beartype import BeartypeConf, beartype

# int serves where float is asked for, as PEP 484 and mypy have it.
CONF = BeartypeConf(is_pep484_tower=True)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype of a function, without the hints that it cannot check.

    Settings check themselves, in words for users: tests must see those.
    """
    if function.__module__.endswith(".settings"):
        return function
    hints = getattr(function, "__annotations__", {})
    if any(type(hint).__name__ == "ScriptClass" for hint in hints.values()):  # functions in TorchScript check these
        return function
    for name, hint in hints.items():
        if uncheckable(hint):
            hints[name] = Any
    return beartype(conf=CONF)(function)


def uncheckable(hint: Any) -> bool:
    """`Self`, which beartype knows only in classes it decorates whole, protocols without `isinstance`, and what tests
    replace by stand-ins: models and tokenizers, whose use mypy checks.
    """
    quiet = getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False)
    replaced = getattr(hint, "__name__", "") in ("LanguageModel", "Tokenizer")
    return hint is Self or quiet or replaced or any(map(uncheckable, get_args(hint)))
