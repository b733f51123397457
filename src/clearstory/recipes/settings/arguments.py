"""Checks of the arguments of public functions: a wrong name or type raises an error that says what is expected."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from clearstory.errors import BadSetting, UnknownName
from clearstory.recipes.settings.other_names import nearest_setting
from clearstory.recipes.settings.schema import quote_value

P = ParamSpec("P")
R = TypeVar("R")


def check_arguments(function: Callable[P, R], name: str | None = None) -> Callable[P, R]:
    """The function, raising UnknownName for a wrong keyword and BadSetting for an argument of a wrong type.

    `name`: the name of the function in messages, its own when not given.

    Keywords of `**settings` are those of its TypedDict; nested and dotted ones are checked by `build_settings`.

    >>> @check_arguments
    ... def repeat(text: str, *, times: int = 2) -> str:
    ...     return text * times
    >>> repeat("a", tines=3)
    Traceback (most recent call last):
    clearstory.errors.UnknownName: repeat has no argument called 'tines'; did you mean 'times'?
    >>> repeat("a", times="three")
    Traceback (most recent call last):
    clearstory.errors.BadSetting: times of repeat is 'three'; it must be an integer
    """

    title = name or function.__name__

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        hints, settings, accepts_settings = argument_types(function)
        for key in kwargs:
            if key not in hints and key not in settings and not (accepts_settings and "." in key):
                own = [*hints, *settings]
                close = nearest_setting(key, [*own, *nested_keys(function)], listed=own)
                raise UnknownName(f"{title} has no argument called '{key}'; {close}")
        # Python takes the name of a positional argument as one of `**settings`; `bind` does only from Python 3.13 on.
        also_setting = positional_only_names(function) if accepts_settings else []
        if twice := next((key for key in also_setting[: len(args)] if key in kwargs), None):
            raise BadSetting(f"{title}: multiple values for argument '{twice}'; give it once")
        try:
            signature(function).bind(*args, **{key: value for key, value in kwargs.items() if key not in also_setting})
        except TypeError as error:  # too many, too few, or one given twice
            raise BadSetting(f"{title}: {error}; its arguments are {', '.join(hints)}") from None
        values = dict(zip(positional_names(function, len(args)), args, strict=False)) | kwargs
        for key, value in values.items():
            if not matches_type(value, hints.get(key, Any)):
                expected = describe_type(hints[key])
                raise BadSetting(f"{key} of {title} is {quote_value(value)}; it must be {expected}")
        return function(*args, **kwargs)

    return checked


@cache
def argument_types(function: Callable[..., Any]) -> tuple[dict[str, Any], frozenset[str], bool]:
    """The types of a function's named arguments, the keys of its `**settings`, and whether it has `**settings`."""
    hints = typing.get_type_hints(function)
    named: dict[str, Any] = {}
    settings: frozenset[str] = frozenset()
    accepts_settings = False
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            accepts_settings = True
            (typed_dict,) = get_args(hints[name]) or (None,)
            settings = frozenset(getattr(typed_dict, "__annotations__", ()))
        elif parameter.kind is not Parameter.VAR_POSITIONAL:
            named[name] = hints.get(name, Any)
    return named, settings, accepts_settings


def nested_keys(function: Callable[..., Any]) -> list[str]:
    """The dotted keys of the sections of a function's `**settings`, such as training.learning_rate."""
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            (typed_dict,) = get_args(typing.get_type_hints(function)[name]) or (None,)
            sections = typing.get_type_hints(typed_dict).items() if typed_dict is not None else ()
            return [f"{key}.{field}" for key, hint in sections for field in getattr(hint, "__annotations__", ())]
    return []


def positional_names(function: Callable[..., Any], count: int) -> Iterable[str]:
    """The names of the first `count` positional parameters of a function, without `*args`."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, each in signature(function).parameters.items() if each.kind in kinds][:count]


def positional_only_names(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters of a function before its `/`."""
    return [name for name, each in signature(function).parameters.items() if each.kind is Parameter.POSITIONAL_ONLY]


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value has a type, as far as that is checked: unknown kinds of types accept everything."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches_type(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        is_too_large = isinstance(value, Integral) and abs(int(value)) >= 10**308  # for a float
        return isinstance(value, Real) and not isinstance(value, bool) and not is_too_large
    if hint in (str, Path) or is_dataclass(hint):
        return isinstance(value, typing.cast(type, hint))
    if origin is Sequence:
        is_sequence = isinstance(value, Sequence) or (hasattr(value, "__len__") and hasattr(value, "__getitem__"))
        if isinstance(value, str | bytes | Mapping) or not is_sequence:
            return False
        return all(matches_type(each, inner[0]) for each in value)
    if origin is Callable:
        return callable(value)
    if getattr(hint, "_is_protocol", False):
        return all(hasattr(value, name) for name in protocol_members(hint))
    return True


def protocol_members(protocol: type[Any]) -> list[str]:
    """Names of the members that a protocol class defines."""
    return [name for name in vars(protocol) if not name.startswith("_")]


def describe_type(hint: Any) -> str:
    """A type in words, for an error message.

    >>> describe_type(str | Sequence[str] | None)
    'text, a sequence of text or None'
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        *first, last = [describe_type(each) for each in inner]
        return f"{', '.join(first)} or {last}"
    if origin is Literal:
        return " or ".join(f"'{each}'" for each in inner)
    if origin is Sequence:
        return f"a sequence of {describe_type(inner[0])}"
    if origin is Callable:
        return "a function"
    names = {str: "text", int: "an integer", float: "a number", bool: "True or False", Path: "a Path"}
    names |= {types.NoneType: "None"}
    if getattr(hint, "_is_protocol", False):
        return f"an object with {' and '.join(protocol_members(hint))}"
    return names.get(hint, getattr(hint, "__name__", str(hint)))
