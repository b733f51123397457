"""Rules of fields: the checks of single JSON values against them, and types and values in words, for errors."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from clearstory.server.errors import RequestError, shorten

MAX_NESTING, MAX_VALUES = 32, 200_000
"""Levels and values of an object of any form, such as a JSON schema."""


@dataclass(frozen=True)
class FieldRule:
    """What is known of a field besides its type.

    Args:
        doc: one line of description.
        minimum: smallest number; holds for every number of the field, also in arrays and objects.
        maximum: largest number.
        min_items: smallest number of items of an array or an object; of the outermost one of nested arrays.
        max_items: largest number of items.
        min_length: smallest number of characters; holds for every text of the field.
        max_length: largest number of characters.
        refusal: why the field is not supported; None for a supported one.
        harmless: values of a field that is not supported that change nothing and are accepted.
    """

    doc: str = ""
    minimum: float | None = None
    maximum: float | None = None
    min_items: int = 0
    max_items: int | None = None
    min_length: int = 0
    max_length: int | None = None
    refusal: str | None = None
    harmless: tuple[Any, ...] = ()


UNRESTRICTED = FieldRule()
"""The rule of a value without any."""


def smallest_int(rule: FieldRule) -> float:
    """The smallest integer of a field; without a rule that of 64 bits."""
    return -(2**63) if rule.minimum is None else rule.minimum


def largest_int(rule: FieldRule) -> float:
    """The largest integer of a field; without a rule that of 64 bits."""
    return 2**63 - 1 if rule.maximum is None else rule.maximum


def check_number(value: float, rule: FieldRule, path: str, kind: str) -> float:
    """The number, if it is finite and within the rule. `kind`: "integer" or "decimal", for the code of the error."""
    low, high = (smallest_int(rule), largest_int(rule)) if kind == "integer" else (rule.minimum, rule.maximum)
    if low is not None and value < low:
        message = f"{path} is {describe_value(value)}; it must be at least {number_text(low)}"
        raise RequestError(message, param=path, code=f"{kind}_below_min_value")
    if high is not None and value > high:
        message = f"{path} is {describe_value(value)}; it must be at most {number_text(high)}"
        raise RequestError(message, param=path, code=f"{kind}_above_max_value")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RequestError(f"{path} is not a finite number; send a smaller number", param=path, code="invalid_value")
    return number


def check_text(value: str, rule: FieldRule, path: str) -> str:
    """The text, if it is valid Unicode and of a length within the rule."""
    if rule.max_length is not None and len(value) > rule.max_length:
        message = f"{path} has {len(value):,} characters; it must have at most {rule.max_length:,}"
        raise RequestError(message, param=path, code="string_above_max_length")
    if len(value) < rule.min_length:
        message = f"{path} has {len(value)} characters; it must have at least {rule.min_length}"
        raise RequestError(message, param=path, code="empty_string" if not value else "string_below_min_length")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{path} contains a lone surrogate; send valid Unicode"
            raise RequestError(message, param=path, code="invalid_value") from None
    return value


def check_count(value: list[Any] | dict[str, Any], rule: FieldRule, path: str, kind: str, noun: str) -> None:
    """Raises RequestError if an array or object has too few or too many items."""
    if rule.max_items is not None and len(value) > rule.max_items:
        message = f"{path} has {len(value):,} {noun}; it must have at most {rule.max_items:,}"
        raise RequestError(message, param=path, code=f"{kind}_above_max_length")
    if len(value) < rule.min_items:
        message = f"{path} has {len(value)} {noun}; it must have at least {rule.min_items}"
        raise RequestError(message, param=path, code=f"empty_{kind}" if not value else f"{kind}_below_min_length")


def check_json(value: Any, path: str) -> None:
    """Raises RequestError for an object of any form that is too large, too deep, or contains an invalid value."""
    stack = [(value, 1)]
    count = 0
    while stack:
        each, depth = stack.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_NESTING:
            what = (
                f"contains more than {MAX_VALUES:,} values"
                if count > MAX_VALUES
                else f"is nested deeper than {MAX_NESTING} levels"
            )
            raise RequestError(f"{path} {what}; send a smaller object", param=path, code="invalid_value")
        if isinstance(each, dict | list):
            parts = each if isinstance(each, list) else [*each, *each.values()]
            stack += [(part, depth + 1) for part in parts]
        elif isinstance(each, str):
            check_text(each, UNRESTRICTED, path)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            check_number(each, UNRESTRICTED, path, "integer" if isinstance(each, int) else "decimal")


def number_text(value: float) -> str:
    """A number as it is written in an error message.

    >>> number_text(2.0), number_text(0.5), number_text(131072)
    ('2', '0.5', '131,072')
    """
    return f"{int(value):,}" if float(value).is_integer() else str(value)


def describe_value(value: Any) -> str:
    """A JSON value for an error message: numbers and short texts themselves, everything else by its type."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a number of more than 20 digits"
    if isinstance(value, str):
        return f"'{quote(value)}'"
    return f"an array of {len(value):,} items" if isinstance(value, list) else "an object"


def describe_type(hint: Any) -> str:
    """An annotation in words.

    >>> describe_type(str | tuple[int, ...] | None)
    'a string, an array of integers or null'
    """
    *names, last = dict.fromkeys(describe_member(kind) for kind in members(hint))
    return f"{', '.join(names)} or {last}" if names else last


def describe_member(kind: Any, plural: bool = False) -> str:
    """A type that is no union in words."""
    if get_origin(kind) is Literal:
        return f"{'texts of' if plural else 'one of'} {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is tuple:
        inner = " or ".join(dict.fromkeys(describe_member(each, True) for each in members(get_args(kind)[0])))
        return f"{'arrays' if plural else 'an array'} of {inner}"
    singular = TYPE_NAMES.get(kind, "an object")
    return f"{singular.split(' ', 1)[1]}s" if plural and " " in singular else singular


TYPE_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Any: "any value",
    types.NoneType: "null",
}
"""Types of JSON values in words."""


def quote(text: str) -> str:
    """A text of the client for an error message, shortened."""
    return shorten(text, 80)


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; any other type alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
