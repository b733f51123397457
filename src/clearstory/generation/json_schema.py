"""JSON schemas: supported keywords, and validation of texts.

A schema is checked before anything is generated: a keyword that neither the grammar nor the check of the text would
honour is an error that names its path, since ignoring it would give texts that do not follow the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation, localcontext
from difflib import get_close_matches
from functools import cache
from typing import Any

from clearstory.errors import BadInput, GrammarViolation, nearest
from clearstory.generation.grammar_tokens import contains_match, missing_extra, regex_error

MAX_SCHEMA_LENGTH = 2**18
"""Maximum number of characters of a schema as JSON."""

ANNOTATIONS = frozenset(
    ["$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly",
     "writeOnly", "discriminator"]
)  # fmt: skip
"""Keywords that describe a value without restricting it."""

SCHEMA_MAPS = frozenset(["properties", "patternProperties", "$defs", "definitions"])
"""Keywords whose value is an object of schemas."""

SCHEMA_LISTS = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
"""Keywords whose value is an array of schemas."""

SUBSCHEMAS = frozenset(["items", "additionalProperties"])
"""Keywords whose value is a schema."""

VALUES = frozenset(
    ["type", "enum", "const", "required", "minProperties", "maxProperties", "minItems", "maxItems",
     "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
     "exclusiveMaximum", "multipleOf", "$ref", "$id"]
)  # fmt: skip
"""Other keywords that restrict a value."""

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
"""Values of `format`."""

HINTS = {
    "nullable": 'use an array of types, such as {"type": ["string", "null"]}',
    "uniqueItems": "omit it; use enum and maxItems if they suffice",
    "not": "describe allowed values with enum, pattern or anyOf",
    "dependencies": "describe the alternatives with anyOf",
    "additionalItems": "use prefixItems with items",
}
"""Alternatives to unsupported keywords."""


class JSONSchemaError(BadInput):
    """A JSON schema that is invalid or not supported.

    Args:
        path: the keyword, such as "properties.age.minimum"; empty for the schema itself.
        reason: what is wrong, as a sentence that the path is the subject of.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the JSON schema is not supported: {path or 'it'} {reason}")
        self.path, self.reason = path, reason


def check_schema(schema: Any) -> None:
    """Raises JSONSchemaError, with the path, for a schema that is invalid or uses a keyword that is not supported."""
    if not isinstance(schema, Mapping):
        raise JSONSchemaError("", f"is {json_text(schema)}; it must be an object")
    named = str(schema.get("$schema", ""))
    if re.search(r"draft-0?[34]\b", named):
        raise JSONSchemaError("$schema", f"is {json_text(named)}; drafts 6, 7, 2019-09 and 2020-12 are supported")
    try:
        if (length := len(json.dumps(schema, ensure_ascii=False))) > MAX_SCHEMA_LENGTH:
            raise JSONSchemaError("", f"has {length:,} characters; at most {MAX_SCHEMA_LENGTH:,} are supported")
        check_keywords(schema, "")
        errors = invalid_values(schema)
    except RecursionError:
        raise JSONSchemaError("", "is nested too deeply; write it flatter, with $defs and $ref") from None
    if errors:
        error = min(errors, key=lambda each: len(each.absolute_path))
        path = join_path(*error.absolute_path)
        raise JSONSchemaError(path, f"is {json_text(error.instance)}, which is not a valid value of this keyword")


def invalid_values(schema: Any) -> list[Any]:
    """The errors of a schema by the metaschema of draft 2020-12."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise missing_extra() from None
    return list(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))


def check_keywords(schema: Any, path: str) -> None:
    """Raises JSONSchemaError for a keyword that is not supported, of a schema and of all schemas in it."""
    if isinstance(schema, bool) or not isinstance(schema, Mapping):
        return  # the metaschema says where a schema must be an object
    known = ANNOTATIONS | SCHEMA_MAPS | SCHEMA_LISTS | SUBSCHEMAS | VALUES
    for keyword, value in schema.items():
        here = join_path(path, keyword)
        if keyword not in known:
            close = nearest(keyword, known) if get_close_matches(keyword[:200], known, n=1) else ""
            hint = HINTS.get(keyword) or close or "omit it"
            raise JSONSchemaError(here, f"is not a supported keyword; {hint}")
        if keyword in SCHEMA_MAPS and isinstance(value, Mapping):
            for name, each in value.items():
                check_keywords(each, join_path(here, name))
        elif keyword in SCHEMA_LISTS and isinstance(value, list):
            for number, each in enumerate(value):
                check_keywords(each, join_path(here, number))
        elif keyword in SUBSCHEMAS:
            check_keywords(value, here)
        if keyword in VALUES | SUBSCHEMAS:
            check_value(keyword, value, here, inside=bool(path))
    if isinstance(schema.get("minProperties"), int) and schema["minProperties"] > 1:
        # Names beyond `properties` may be generated twice, and count once.
        names = schema.get("properties")
        if not isinstance(names, Mapping) or len(names) < schema["minProperties"]:
            reason = "is above 1, and supported only with so many names in properties; list them there, as required"
            raise JSONSchemaError(join_path(path, "minProperties"), reason)


def check_value(keyword: str, value: Any, path: str, *, inside: bool) -> None:
    """Raises JSONSchemaError for a value that is not supported. `inside`: whether the schema is part of another."""
    if keyword == "items" and isinstance(value, list):
        raise JSONSchemaError(path, "is an array; use prefixItems")
    if keyword == "format" and value not in FORMATS:
        raise JSONSchemaError(path, f"is {json_text(value)}; supported: {', '.join(FORMATS)}")
    if keyword == "$ref" and not str(value).startswith("#"):
        raise JSONSchemaError(path, f"is {json_text(value)}; only references into the schema itself, such as #/$defs/a")
    if keyword == "$id" and inside:
        raise JSONSchemaError(path, "is not supported inside a schema; use it at the top level or omit it")
    if keyword == "pattern" and isinstance(value, str):
        check_pattern(value, path)


def check_pattern(pattern: str, path: str) -> None:
    """Raises JSONSchemaError for a regular expression that no matcher accepts."""
    if reason := regex_error(pattern):
        raise JSONSchemaError(path, f"is {json_text(pattern)}, which is not a supported regular expression: {reason}")


def join_path(*parts: Any) -> str:
    """The path of a keyword: names joined by dots, indices in brackets.

    >>> join_path("properties.age", "anyOf", 1)
    'properties.age.anyOf[1]'
    """
    out = ""
    for part in parts:
        shown = f"[{part}]" if isinstance(part, int) else str(part)[:80]
        out += shown if not out or isinstance(part, int) else f".{shown}" if shown else ""
    return out


def json_text(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_follows(text: str, schema: Mapping[str, Any]) -> None:
    """Raises GrammarViolation if a text is not JSON, or not valid for a schema that `check_schema` accepts.

    `format` is not checked: it is held by the grammar alone.
    """
    try:
        value = parse_exactly(text)
        exact = parse_exactly(json.dumps(schema))
        with localcontext(prec=5000):
            error = next(iter(validator_class()(exact).iter_errors(value)), None)
    except (ValueError, RecursionError, InvalidOperation) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise GrammarViolation(f"the generated text cannot be validated against its JSON schema ({reason})") from None
    if error is not None:
        where, reason = join_path(*error.absolute_path) or "the value", str(error.message)[:200]
        raise GrammarViolation(f"the generated text is not valid for its JSON schema: {where}: {reason}")


def parse_exactly(text: str) -> Any:
    """The value of a JSON text, with decimal fractions as they are written: 0.07 is a multiple of 0.01."""
    return json.loads(text, parse_float=Decimal, parse_int=lambda digits: int(Decimal(digits)))


@cache
def validator_class() -> Any:
    """The validator of draft 2020-12, with regular expressions that need linear time.

    Those of Python, on a text of 40 characters, can take hours.
    """
    from jsonschema import Draft202012Validator, validators

    return validators.extend(
        Draft202012Validator,
        {
            "pattern": pattern_errors,
            "patternProperties": pattern_properties_errors,
            "additionalProperties": additional_properties_errors,
        },
    )


def pattern_errors(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    """Errors of the keyword `pattern`."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not contains_match(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def pattern_properties_errors(validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    """Errors of the keyword `patternProperties`."""
    if isinstance(value, dict):
        for pattern, each in patterns.items():
            for name, item in value.items():
                if contains_match(pattern, name):
                    yield from validator.descend(item, each, path=name, schema_path=pattern)


def additional_properties_errors(validator: Any, extra: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Errors of the keyword `additionalProperties`."""
    patterns = schema.get("patternProperties", {})
    for name, item in value.items() if isinstance(value, dict) else ():
        if name not in schema.get("properties", {}) and not any(contains_match(each, name) for each in patterns):
            yield from validator.descend(item, extra, path=name)
