"""HTTP and JSON: requests parsed into dataclasses, JSON responses, errors mapped to statuses."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from clearstory.errors import BadInput, ClearstoryError, FolderExists, UnknownName
from clearstory.http.display_text import is_unicode, one_line
from clearstory.http.json_values import json_bytes, parse_object
from clearstory.recipes.settings.schema import build_settings

T = TypeVar("T")

log = logging.getLogger("clearstory.studio")

SETTINGS_FIELD = "settings"
"""The field whose keys are not checked here: they are the settings of a view or of a training run."""

MAX_TEXT_CHARACTERS = 20_000
"""The longest text of a request: a page of more tokens than that could not be drawn."""

MAX_VALUES, MAX_NESTING = 10_000, 16
"""The largest number of values in a request, and how deep they may be nested."""

MAX_SENTENCE = 2000
"""The longest error message; a longer one is shortened in its middle."""

STATUS_CODES: dict[type[ClearstoryError], int] = {UnknownName: 404, FolderExists: 409}
"""HTTP statuses of errors; 400 for all others."""


class RequestCancelled(Exception):
    """The client has disconnected, so no response is needed."""


async def parse_body(request: Request, kind: type[T]) -> T:
    """The JSON body as a dataclass. Raises BadInput, UnknownName and BadSetting."""
    body = parse_object(await request.body() or b"{}")
    check_values(body)
    return build_request(kind, body)


def check_values(body: Any) -> None:
    """Raises BadInput for values that no setting or text can have, before any of them is used.

    These are texts above MAX_TEXT_CHARACTERS or with a part of a character (a lone surrogate), numbers that are not
    finite or above 64 bits, more than MAX_VALUES values, and objects nested deeper than MAX_NESTING.
    """
    stack = [(body, 0)]
    count = 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_VALUES:
            raise BadInput(f"the request holds more than {MAX_VALUES:,} values; send fewer")
        if isinstance(value, dict | list):
            if depth == MAX_NESTING:
                raise BadInput(f"the request is nested deeper than {MAX_NESTING} levels; send plain keys and values")
            parts = value if isinstance(value, list) else [*value, *value.values()]
            stack += [(each, depth + 1) for each in parts[: MAX_VALUES + 1]]
        elif isinstance(value, str):
            if len(value) > MAX_TEXT_CHARACTERS:
                raise BadInput(
                    f"a text of this request has {len(value):,} characters; the studio takes at most "
                    f"{MAX_TEXT_CHARACTERS:,}"
                )
            if not is_unicode(value):
                raise BadInput("a text of this request holds half a character (a lone surrogate); send whole ones")
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadInput("a number of this request is too large; send a finite number")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise BadInput("a whole number of this request does not fit into 64 bits; send a smaller one")


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
    return Response(json_bytes(value), status, media_type="application/json")


async def clearstory_error_response(request: Request, error: Exception) -> Response:
    """The message of an error of this library, on one line, with its status."""
    status = next((status for kind, status in STATUS_CODES.items() if isinstance(error, kind)), 400)
    return json_response({"error": one_line(str(error), MAX_SENTENCE)}, status)


async def excessive_value_response(request: Request, error: Exception) -> Response:
    """The response for a value with which the computation leaves the range of numbers, memory, or the call stack."""
    log.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, one_line(str(error), 300))
    sentence = "a value of this request is too large to compute with; send a smaller number or a shorter text"
    return json_response({"error": sentence}, 400)


async def file_error_response(request: Request, error: Exception) -> Response:
    """The response for a file that the operating system refuses, such as one without the right to read it."""
    name, reason = getattr(error, "filename", None), getattr(error, "strerror", None) or type(error).__name__
    sentence = f"{'a file' if name is None else name} cannot be used ({reason}); check that it exists and is readable"
    return json_response({"error": one_line(sentence, MAX_SENTENCE)}, 400)


async def http_error_response(request: Request, error: Exception) -> Response:
    """The response for a path or method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    path = one_line(request.url.path, 200)
    return json_response({"error": f"there is no {request.method} {path} here"}, status)


async def cancelled_response(request: Request, error: Exception) -> Response:
    """An empty response with status 499, which no client reads."""
    return Response(status_code=499)


async def internal_error_response(request: Request, error: Exception) -> Response:
    """The response for any other exception: one sentence with status 500; the server logs the traceback."""
    log.error("%s %s failed", request.method, request.url.path)
    kind = type(error).__name__
    sentence = f"internal error ({kind}: {one_line(str(error), 300)}); the studio's terminal shows the traceback"
    return json_response({"error": sentence}, 500)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    ClearstoryError: clearstory_error_response,
    RequestCancelled: cancelled_response,
    HTTPException: http_error_response,
    OSError: file_error_response,
    OverflowError: excessive_value_response,
    MemoryError: excessive_value_response,
    RecursionError: excessive_value_response,
    Exception: internal_error_response,
}
"""The response handler of each exception type, for Starlette."""
