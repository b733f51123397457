"""OpenAPI: a description of all routes, generated from the dataclasses that parse requests."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from starlette.responses import Response

from clearstory import __version__
from clearstory.server.field_rules import FieldRule, members
from clearstory.server.fields import field_types, rule_of


@dataclass(frozen=True)
class ApiRoute:
    """One route of the server.

    Args:
        method: GET or POST.
        path: its path, parameters in braces.
        function: answers requests; see `RequestContext`.
        doc: one sentence.
        fields: the dataclass of its JSON body; None for GET.
        streams: whether it can answer with server-sent events.
        public: whether it needs no API key.
        media_type: of the response.
    """

    method: Literal["GET", "POST"]
    path: str
    function: Callable[..., Awaitable[Response]]
    doc: str
    fields: type[Any] | None = None
    streams: bool = False
    public: bool = False
    media_type: str = "application/json"


def openapi_schema(routes: Iterable[ApiRoute]) -> dict[str, Any]:
    """The description of the routes in OpenAPI 3.1."""
    schemas: dict[str, Any] = {"Error": ERROR_SCHEMA}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path.replace(":path}", "}"), {})[route.method.lower()] = operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Clearstory", "version": __version__, "description": "Language models over HTTP."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def operation(route: ApiRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    """A route as an OpenAPI operation; adds the schemas of its dataclasses to `schemas`."""
    content: dict[str, Any] = {route.media_type: {}}
    if route.streams:
        content["text/event-stream"] = {}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    result: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {route.path}",
        "summary": route.doc,
        "responses": {
            "200": {"description": "success", "content": content},
            "4XX": {"description": "the request is not valid or not allowed", **error},
            "503": {"description": "the queue is full, or the model is not available", **error},
        },
    }
    names = [part[1:-1].partition(":")[0] for part in route.path.split("/") if part.startswith("{")]
    if names:
        result["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.fields is not None:
        schema = class_schema(route.fields, schemas)
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return result


ERROR_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""The schema of an error."""


def class_schema(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a dataclass, which is added to `schemas` with those it refers to."""
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}  # a class may refer to itself
        properties, required = {}, []
        for each in fields(kind):
            rule, has_default = rule_of(each), each.default is not MISSING or each.default_factory is not MISSING
            properties[each.name] = field_schema(field_types(kind)[each.name], rule, has_default, schemas)
            if isinstance(each.default, bool | int | float | str):
                properties[each.name]["default"] = each.default
            required += [] if has_default else [each.name]
        schemas[kind.__name__] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schemas[kind.__name__]["required"] = required
        if doc := (kind.__doc__ or "").strip().partition("\n")[0]:
            schemas[kind.__name__]["description"] = doc
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def field_schema(hint: Any, rule: FieldRule, has_default: bool, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a field; null is a value of every field with a default."""
    if rule.refusal is not None:
        return {"enum": [None, *rule.harmless], "description": rule.doc}
    kinds = [*members(hint), *([types.NoneType] if has_default else [])]
    options = [member_schema(kind, rule, schemas) for kind in dict.fromkeys(kinds)]
    return {**(options[0] if len(options) == 1 else {"anyOf": options}), "description": rule.doc}


def member_schema(kind: Any, rule: FieldRule, schemas: dict[str, Any], inner: bool = False) -> dict[str, Any]:
    """The JSON schema of a type that is not a union. `inner`: whether it is an item; item counts do not apply."""
    if is_dataclass(kind) and isinstance(kind, type):
        return class_schema(kind, schemas)
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if kind is int or kind is float:
        return {"type": "integer" if kind is int else "number", **bounds(minimum=rule.minimum, maximum=rule.maximum)}
    if kind is str:
        return {"type": "string", **bounds(minLength=rule.min_length or None, maxLength=rule.max_length)}
    counts = (None, None) if inner else (rule.min_items or None, rule.max_items)
    if get_origin(kind) is tuple:
        items = items_schema(get_args(kind)[0], rule, schemas)
        return {"type": "array", "items": items, **bounds(minItems=counts[0], maxItems=counts[1])}
    if get_origin(kind) is dict:
        values = items_schema(get_args(kind)[1], rule, schemas)
        counted = bounds(minProperties=counts[0], maxProperties=counts[1])
        return {"type": "object", "additionalProperties": values, **counted}
    return {bool: {"type": "boolean"}, types.NoneType: {"type": "null"}}.get(kind, {})


def items_schema(hint: Any, rule: FieldRule, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of the items of an array or of the values of an object."""
    options = [member_schema(kind, rule, schemas, inner=True) for kind in members(hint)]
    return options[0] if len(options) == 1 else {"anyOf": options}


def bounds(**values: float | None) -> dict[str, float]:
    """The bounds that are given."""
    return {name: value for name, value in values.items() if value is not None}
