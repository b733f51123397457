"""Fields of requests: JSON objects parsed into frozen dataclasses.

A request is a dataclass whose fields are declared with `request_field` (type by annotation; range, lengths and one line
of description as arguments) or `refused_field` (an unsupported field of OpenAI's API). Values are
never converted silently: an unknown field, a wrong type and a value out of range are errors that name the field. null
means the default wherever a field has one.

Annotations: bool, int, float, str, Literal, another dataclass, tuple[X, ...] (an array), dict[str, X], dict[str, Any]
(any object), Any, and unions of these. Of several dataclasses in a union, the one whose Literal fields match is chosen.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeVar, get_args, get_origin

from clearstory.errors import nearest
from clearstory.server.errors import RequestError
from clearstory.server.field_rules import (
    UNRESTRICTED,
    FieldRule,
    check_count,
    check_json,
    check_number,
    check_text,
    describe_type,
    describe_value,
    largest_int,
    members,
    quote,
    smallest_int,
)

T = TypeVar("T")


def request_field(
    doc: str,
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    min_items: int = 0,
    max_items: int | None = None,
    min_length: int = 0,
    max_length: int | None = None,
) -> Any:
    """A field of a request: see `FieldRule`. Without a default it is required."""
    rule = FieldRule(doc, minimum, maximum, min_items, max_items, min_length, max_length)
    return field(default=default, metadata={"rule": rule})


def refused_field(refusal: str, harmless: tuple[Any, ...] = (), default: Any = None) -> Any:
    """A field of OpenAI's API that is not supported: the sentence says why, or what to use instead.

    null and the values in `harmless`, which mean the same as leaving it out, are accepted.
    """
    rule = FieldRule(f"Not supported: {refusal}.", refusal=refusal, harmless=harmless)
    return field(default=default, metadata={"rule": rule})


def rule_of(each: Any) -> FieldRule:
    """The rule of a dataclass field."""
    rule: FieldRule = each.metadata.get("rule", UNRESTRICTED)
    return rule


def field_types(kind: type[Any]) -> Mapping[str, Any]:
    """The resolved annotations of a dataclass."""
    if kind not in _TYPES:
        _TYPES[kind] = typing.get_type_hints(kind)
    return _TYPES[kind]


_TYPES: dict[type[Any], Mapping[str, Any]] = {}
"""Annotations by class: resolving them takes a millisecond."""


def parse_fields(kind: type[T], body: Any, path: str = "") -> T:
    """A JSON object as a request. `path` is the object's own name in errors, empty for the body.

    Raises RequestError with status 400 and the name of the field.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Example:
    ...     n: int = request_field("Number of texts.", 1, minimum=1, maximum=8)
    >>> parse_fields(Example, {"n": 2})
    Example(n=2)
    >>> parse_fields(Example, {"n": 9})
    Traceback (most recent call last):
    clearstory.server.errors.RequestError: n is 9; it must be at most 8
    """
    if not isinstance(body, dict):
        message = f"{path or 'the request body'} is {describe_value(body)}; it must be an object"
        raise RequestError(message, param=path or None, code="invalid_type")
    prefix = f"{path}." if path else ""
    declared = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # every caller passes a dataclass
    for name in body:
        if name not in declared:
            shown = quote(name)
            message = f"{prefix}{shown} is not a field of this request; {nearest(name, declared)}"
            raise RequestError(message, param=f"{prefix}{shown}", code="unknown_parameter")
    hints = field_types(kind)
    values = {}
    for name, each in declared.items():
        value, rule, where = body.get(name), rule_of(each), f"{prefix}{name}"
        if rule.refusal is not None:
            if value is not None and not any(same_json(value, other) for other in rule.harmless):
                raise RequestError(
                    f"{where} is not supported: {rule.refusal}", param=where, code="unsupported_parameter"
                )
        elif value is not None or (name in body and each.default is MISSING and allows_null(hints[name])):
            values[name] = convert_field(value, hints[name], rule, where)
        elif each.default is MISSING and each.default_factory is MISSING:
            message = f"{where} is {'null' if name in body else 'missing'}; it is required: {rule.doc}"
            raise RequestError(message, param=where, code="missing_required_parameter")
    try:
        return kind(**values)
    except RequestError as error:  # of __post_init__, which knows its own fields only
        error.param = path or None if error.param is None else f"{prefix}{error.param}"
        raise


def same_json(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    return type(value) is type(other) and bool(value == other)


def allows_null(hint: Any) -> bool:
    """Whether null is a value of this type."""
    return types.NoneType in members(hint) or hint is Any


def convert_field(value: Any, hint: Any, rule: FieldRule, path: str) -> Any:
    """A JSON value as a value of the annotated type, its numbers, texts and arrays within the rule."""
    kinds = members(hint)
    objects = [kind for kind in kinds if is_dataclass(kind)]
    arrays = [kind for kind in kinds if get_origin(kind) is tuple]
    if isinstance(value, dict) and objects:
        return parse_fields(choose_class(objects, value, path), value, path)
    if isinstance(value, list) and arrays:
        return convert_array(value, arrays, rule, path)
    for kind in kinds:
        if fits(value, kind):
            return convert_single(value, kind, rule, path)
    code = "invalid_value" if isinstance(value, str) and any(get_origin(kind) is Literal for kind in kinds) else None
    message = f"{path} is {describe_value(value)}; it must be {describe_type(hint)}"
    raise RequestError(message, param=path, code=code or "invalid_type")


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of this type; of arrays, the first item decides."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and (
            not value or any(fits(value[0], each) for each in members(get_args(kind)[0]))
        )
    if get_origin(kind) is dict or is_dataclass(kind):
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return type(value) is int or (isinstance(value, float) and value.is_integer())
    return type(value) is kind


def choose_class(classes: list[Any], value: Mapping[str, Any], path: str) -> Any:
    """Of several dataclasses the one whose Literal fields allow the values given, such as {"type": "text", …}."""
    if len(classes) == 1:
        return classes[0]
    known: dict[str, list[str]] = {}
    for kind in classes:
        choices = {name: get_args(hint) for name, hint in field_types(kind).items() if get_origin(hint) is Literal}
        if all(value.get(name) in names for name, names in choices.items() if isinstance(value.get(name, ""), str)):
            return kind
        for name, names in choices.items():
            known.setdefault(name, []).extend(each for each in names if each not in known.get(name, []))
    name = next((name for name, names in known.items() if value.get(name) not in names), next(iter(known)))
    received = f"is {describe_value(value[name])}" if name in value else "is missing"
    message = f"{path}.{name} {received}; it must be one of: {', '.join(map(repr, known[name]))}"
    raise RequestError(message, param=f"{path}.{name}", code="invalid_value")


def convert_array(value: list[Any], kinds: list[Any], rule: FieldRule, path: str) -> tuple[Any, ...]:
    """A JSON array as a tuple, its items converted."""
    check_count(value, rule, path, "array", "items")
    kind = next((kind for kind in kinds if fits(value, kind)), kinds[0])
    (item_hint, *_) = get_args(kind)
    if item_hint is int and all(type(each) is int for each in value):  # lists of ids are long
        if value and (min(value) < smallest_int(rule) or max(value) > largest_int(rule)):
            for number, each in enumerate(value):
                check_number(each, rule, f"{path}[{number}]", "integer")
        return tuple(value)
    inner = replace(rule, min_items=0, max_items=None)
    if len(kinds) > 1 and value and not fits(value, kind):
        item_hint = reduce(or_, (get_args(each)[0] for each in kinds))  # for the error, which names all of them
    return tuple(convert_field(each, item_hint, inner, f"{path}[{number}]") for number, each in enumerate(value))


def convert_single(value: Any, kind: Any, rule: FieldRule, path: str) -> Any:
    """A JSON value that fits a type, as a value of it: a number, a text, an object of any form."""
    if kind is int:
        value = int(value)
        if not smallest_int(rule) <= value <= largest_int(rule):
            check_number(value, rule, path, "integer")
        return value
    if kind is float:
        return check_number(value, rule, path, "decimal")
    if kind is str:
        return check_text(value, rule, path)
    if get_origin(kind) is dict:
        check_count(value, rule, path, "object", "entries")
        inner, item_hint = replace(rule, min_items=0, max_items=None), get_args(kind)[1]
        for name in value:
            check_text(name, UNRESTRICTED, f"a key of {path}")
        if item_hint is Any:
            check_json(value, path)
            return value
        return {name: convert_field(each, item_hint, inner, f"{path}.{quote(name)}") for name, each in value.items()}
    if kind is Any:
        check_json(value, path)
    return value
