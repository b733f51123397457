"""Arguments of calls that have a tag for each: the grammar of their values, and values in JSON.

A text is written without quotes, up to its closing tag; all other values are JSON. Where a schema allows both, a value
that is valid as JSON of another type than a text is this JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clearstory.errors import GrammarViolation
from clearstory.generation.grammar import json_rule
from clearstory.generation.json_schema import ANNOTATIONS, JSONSchemaError, check_follows, join_path
from clearstory.serving.text_patterns import text_pattern
from clearstory.text.tagged_calls import TaggedCallFormat

DEFINITIONS = ("$defs", "definitions")
"""Keywords with schemas that others refer to."""

KEYWORDS = ANNOTATIONS | {"type", "properties", "required", "additionalProperties", "$id", *DEFINITIONS}
"""Keywords of the parameters of a function."""

MAX_REFERENCES = 32
"""Maximum number of references from schema to schema."""


@dataclass(frozen=True)
class TaggedArgument:
    """An argument of a function.

    Args:
        name: its name.
        schema: its schema, with the definitions that it refers to.
        required: whether each call has it.
        pattern: what its text matches, as an expression of a grammar; None if its value is JSON.
    """

    name: str
    schema: Mapping[str, Any] = field(hash=False)
    required: bool
    pattern: str | None

    def rules(self, rule: str, close: str) -> list[str]:
        """The rule of this name: the value, and the text that closes it."""
        closing = json.dumps(close, ensure_ascii=False)
        if self.pattern is None:
            return [f"{rule}: {rule}_json {closing}", f"{rule}_json: {json_rule(self.schema)}"]
        terminal = rule.upper()
        return [
            f"{rule}[lazy]: {terminal}",
            f"{terminal}: (({self.pattern}) {closing}) & ~(/(.|\\n)*/ {closing} /(.|\\n)+/)",
        ]

    def read(self, text: str) -> str | None:
        """The value as JSON; None if the text is not complete."""
        try:
            is_text = isinstance(json.loads(text, parse_constant=refuse_constant), str)
        except (ValueError, RecursionError):
            return None if self.pattern is None else json.dumps(text, ensure_ascii=False)
        if self.pattern is None:
            return text.strip()
        is_text = is_text or not follows(text, self.schema)
        return json.dumps(text, ensure_ascii=False) if is_text else text.strip()


def refuse_constant(name: str) -> Any:
    """Raises ValueError for NaN and infinities, which are not JSON."""
    raise ValueError(name)


def tagged_arguments(schema: Mapping[str, Any], form: TaggedCallFormat) -> list[TaggedArgument]:
    """The arguments of a function with a supported schema, in its order.

    Raises JSONSchemaError for what this format cannot express.
    """
    for keyword in schema:
        if keyword not in KEYWORDS:
            raise JSONSchemaError(
                keyword,
                "is not supported by this model, whose calls have a tag for each argument; describe the arguments "
                "with properties",
            )
    properties, required = schema.get("properties", {}), schema.get("required", ())
    for name in required:
        if name not in properties:
            raise JSONSchemaError("required", f"names '{name}', which is not in properties; describe it there")
    shared = {name: schema[name] for name in DEFINITIONS if name in schema}
    return [
        make_argument(name, {**each, **shared} if isinstance(each, Mapping) else each, name in required, form)
        for name, each in properties.items()
    ]


def make_argument(name: str, schema: Any, required: bool, form: TaggedCallFormat) -> TaggedArgument:
    """One argument. Raises JSONSchemaError."""
    path = join_path("properties", name)
    if not name or form.middle in name or form.middle[0] in name:
        raise JSONSchemaError(path, f"has {form.middle[0]!r} in its name, or no name; rename it for this model's calls")
    if schema is False:
        raise JSONSchemaError(path, "is false; remove this property")
    schema = {} if schema is True else schema
    leaves = list(alternatives(schema, schema, path))
    return TaggedArgument(name, schema, required, pattern_of(leaves, form.close, path))


def alternatives(schema: Any, root: Mapping[str, Any], path: str, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The schemas without alternatives, each of at most one type, whose union is a schema."""
    if depth > MAX_REFERENCES:
        raise JSONSchemaError(path, f"has more than {MAX_REFERENCES} references in a row; refer to it directly")
    if schema is True:
        schema = {}
    if schema is False:
        return
    inner = next((word for word in ("$ref", "anyOf", "oneOf", "allOf") if word in schema), None)
    if inner == "allOf" and len(schema[inner]) > 1 and schema.get("type", "string") == "string":
        raise JSONSchemaError(
            join_path(path, inner), "is not supported for texts by this model's calls; join its parts"
        )
    if inner is None or (inner == "allOf" and len(schema[inner]) > 1):
        types = schema.get("type")
        yield from ({**schema, "type": each} for each in types) if isinstance(types, list) else [schema]
        return
    parts = [resolve(schema[inner], root, path)] if inner == "$ref" else schema[inner]
    found = [leaf for part in parts for leaf in alternatives(part, root, path, depth + 1)]
    others = schema.keys() - ANNOTATIONS - {*DEFINITIONS, inner}
    if others and any(map(may_be_text, found)):
        raise JSONSchemaError(
            join_path(path, min(others)), f"stands beside {inner}, which this model's calls do not support; omit one"
        )
    yield from found


def resolve(reference: str, root: Mapping[str, Any], path: str) -> Any:
    """The schema that a reference names."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise JSONSchemaError(path, f"refers to '{reference}', which is not supported; refer to a name of $defs")
        found = found[part]
    return found


def may_be_text(leaf: Mapping[str, Any]) -> bool:
    """Whether a schema without alternatives allows a text."""
    if leaf.get("type", "string") != "string":
        return False
    values = constants(leaf)
    return values is None or any(isinstance(value, str) for value in values)


def constants(leaf: Mapping[str, Any]) -> list[Any] | None:
    """The values of a schema that lists them, or of null and boolean; None for any other."""
    if "const" in leaf:
        return [leaf["const"]]
    if "enum" in leaf:
        return list(leaf["enum"])
    if leaf.get("type") == "null":
        return [None]
    return [True, False] if leaf.get("type") == "boolean" else None


def pattern_of(leaves: list[Mapping[str, Any]], close: str, path: str) -> str | None:
    """What the text of a value matches, as an expression of a grammar; None if no value is a text."""
    if not any(map(may_be_text, leaves)):
        return None
    restrictions = ("minLength", "maxLength", "pattern", "format")
    for leaf in leaves:
        if may_be_text(leaf) and constants(leaf) is None and not any(word in leaf for word in restrictions):
            return r"/(.|\n)*/"
    patterns = []
    for leaf in leaves:
        values = constants(leaf)
        if values is None and not may_be_text(leaf):
            raise JSONSchemaError(
                path, "allows restricted texts and other values, which this model's calls do not support; allow one"
            )
        if values is None:
            patterns.append(text_pattern(leaf, path))
        for value in values or ():
            if not follows(json.dumps(value), leaf):
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            if close in text + close[:-1]:
                raise JSONSchemaError(path, f"has the value {text[:40]!r}, which closes an argument; omit it")
            patterns.append(json.dumps(text, ensure_ascii=False))
    if not patterns:
        raise JSONSchemaError(path, "allows no value; correct its enum or its type")
    return " | ".join(patterns)


def follows(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is JSON that is valid for a schema."""
    try:
        check_follows(text, schema)
    except GrammarViolation:
        return False
    return True
