"""Odd values of fields: made from the declarations of a request's dataclass, for every field of every route."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from clearstory.server.field_rules import members
from clearstory.server.fields import field_types, rule_of

MISSING = object()
"""The field is left out."""

RAW = {
    "1e308": b"1e308", "-1e308": b"-1e308", "1e999": b"1e999", "NaN": b"NaN", "Infinity": b"Infinity",
    "a number of 5,000 digits": b"9" * 5000, "a lone surrogate": b'"\\ud800"', "invalid UTF-8": b'"\xff\xfe"',
    "nested": b"[" * 2000 + b"]" * 2000, "nested objects": b'{"a":' * 50 + b"1" + b"}" * 50,
}  # fmt: skip
"""Values as they are written in JSON, or as they are not."""


def odd_values(hint: Any, rule: Any, long: int) -> Iterator[tuple[str, Any]]:
    """Names and values: missing, null, of a wrong type, too small, too large, empty, long."""
    yield "missing", MISSING
    yield "null", None
    for value in (True, -1, 0, 0.5, 2**63, 2**31, "", "x", [], {}, [[]], [{}], {"x": 1}, [None], ["a", 1], -(2**63)):
        yield f"{value!r}", value
    if rule.maximum is not None:
        yield "max + 1", rule.maximum + 1
        yield "max", rule.maximum
    if rule.minimum is not None:
        yield "min − 1", rule.minimum - 1
        yield "min", rule.minimum
    if rule.max_items is not None:
        yield "too many", ["a"] * (rule.max_items + 1)
        yield "too many entries", {str(number): 0 for number in range(rule.max_items + 1)}
    if any(kind is str for kind in members(hint)):
        yield f"{long} characters", "a" * long


def odd_bodies(kind: type[Any], body: Mapping[str, Any], long: int = 2**15) -> Iterator[tuple[str, bytes]]:
    """Bodies in which one field, also of an object inside, is odd, each with a name. `long`: characters of a text."""
    for path, name, value in odd_fields(kind, body, (), long):
        changed: Any = deepcopy(dict(body))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        if value is MISSING:
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
        yield f"{'.'.join(map(str, path))} {name}", json.dumps(changed).encode()
        if name == "null":
            inner[path[-1]] = "ODD"
            for raw_name, raw in RAW.items():
                yield f"{'.'.join(map(str, path))} {raw_name}", json.dumps(changed).encode().replace(b'"ODD"', raw)
    yield "an unknown field", json.dumps({**body, "unknown": 1}).encode()


def odd_fields(
    kind: type[Any], body: Mapping[str, Any], path: tuple[Any, ...], long: int
) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    """Paths of fields with the names and values of what they could be."""
    for each in fields(kind):
        hint, rule = field_types(kind)[each.name], rule_of(each)
        for name, value in odd_values(hint, rule, long):
            yield (*path, each.name), name, value
        value = body.get(each.name)
        inner = [
            found
            for member in members(hint)
            for found in (member, *(get_args(member)[:1] if get_origin(member) is tuple else ()))
        ]
        classes = [found for member in inner for found in members(member) if is_dataclass(found)]
        if isinstance(value, dict) and classes:
            yield from odd_fields(best_class(classes, value), value, (*path, each.name), long)
        elif isinstance(value, list) and value and isinstance(value[0], dict) and classes:
            yield from odd_fields(best_class(classes, value[0]), value[0], (*path, each.name, 0), long)


def best_class(classes: list[Any], value: Mapping[str, Any]) -> Any:
    """The first class with all keys of an object."""
    return next((each for each in classes if set(value) <= {one.name for one in fields(each)}), classes[0])
