"""HTTP and JSON: requests parsed into dataclasses, values written as JSON responses, errors mapped to statuses."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from clearstory.errors import BadInput, ClearstoryError, FolderExists, UnknownName
from clearstory.recipes.settings.schema import build_settings

T = TypeVar("T")

log = logging.getLogger("clearstory.studio")

SETTINGS_FIELD = "settings"
"""The field whose keys are not checked here: they are the settings of a view or of a training run."""

STATUS_CODES: dict[type[ClearstoryError], int] = {UnknownName: 404, FolderExists: 409}
"""HTTP statuses of errors; 400 for all others."""


class RequestCancelled(Exception):
    """The client has disconnected, so no response is needed."""


async def parse_body(request: Request, kind: type[T]) -> T:
    """The JSON body as a dataclass. Raises BadInput, UnknownName and BadSetting."""
    try:
        body = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the request body is not JSON ({error}); send an object") from None
    if not isinstance(body, dict):
        raise BadInput("the request body is JSON but not an object; send {...}")
    return build_request(kind, body)


def build_request(kind: type[T], body: Mapping[str, Any]) -> T:
    """A dataclass from keys and values; the keys of `settings` are passed through unchecked."""
    settings = body.get(SETTINGS_FIELD)
    if settings is None:
        return build_settings(
            kind, {key: value for key, value in body.items() if key != SETTINGS_FIELD or value is not None}
        )
    if SETTINGS_FIELD not in kind.__dataclass_fields__:  # type: ignore[attr-defined]  # every caller passes a dataclass
        raise UnknownName(f"this request has no '{SETTINGS_FIELD}'; leave it out")
    if not isinstance(settings, dict):
        raise BadInput(f"'{SETTINGS_FIELD}' is not an object; send keys and values")
    parsed = build_settings(kind, {key: value for key, value in body.items() if key != SETTINGS_FIELD})
    return replace(parsed, **{SETTINGS_FIELD: settings})  # type: ignore[type-var]


def parse_query(request: Request, kind: type[T]) -> T:
    """The query parameters as a dataclass. Raises UnknownName and BadSetting."""
    return build_settings(kind, dict(request.query_params))


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON response; NaN and infinities become null."""
    text = json.dumps(to_json_value(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def to_json_value(value: Any) -> Any:
    """The value with tuples as lists, paths as strings, and non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


async def clearstory_error_response(request: Request, error: Exception) -> Response:
    """The message of an error of this library, with its status."""
    status = next((status for kind, status in STATUS_CODES.items() if isinstance(error, kind)), 400)
    return json_response({"error": str(error)}, status)


async def http_error_response(request: Request, error: Exception) -> Response:
    """The response for a path or method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    return json_response({"error": f"there is no {request.method} {request.url.path} here"}, status)


async def cancelled_response(request: Request, error: Exception) -> Response:
    """An empty response with status 499, which no client reads."""
    return Response(status_code=499)


async def internal_error_response(request: Request, error: Exception) -> Response:
    """The response for any other exception: one sentence with status 500; the server logs the traceback."""
    log.error("%s %s failed", request.method, request.url.path)
    kind = type(error).__name__
    return json_response({"error": f"internal error ({kind}: {error}); the studio's terminal shows the traceback"}, 500)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    ClearstoryError: clearstory_error_response,
    RequestCancelled: cancelled_response,
    HTTPException: http_error_response,
    Exception: internal_error_response,
}
"""The response handler of each exception type, for Starlette."""
