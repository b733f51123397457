"""Asked: what a request says, as a dataclass; and what goes wrong, as one sentence with a status."""

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

LOOSE = "settings"
"""A field whose keys are somebody else's: a view's, or a training's."""

STATUS: dict[type[ClearstoryError], int] = {UnknownName: 404, FolderExists: 409}
"""Statuses of errors; of all others 400."""


class Dropped(Exception):
    """Whoever asked has gone, or has asked something newer; nobody waits for an answer."""


async def asked(request: Request, kind: type[T]) -> T:
    """The request's JSON as the dataclass of what can be asked. Raises BadInput, UnknownName and BadSetting."""
    try:
        said = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the request is not JSON ({error}); send an object") from None
    if not isinstance(said, dict):
        raise BadInput("the request is JSON, but no object; send {...}")
    return build_loosely(kind, said)


def build_loosely(kind: type[T], said: Mapping[str, Any]) -> T:
    """A dataclass from keys and values; those under `settings` are kept as they are."""
    loose = said.get(LOOSE)
    if loose is None:
        return build_settings(kind, {key: value for key, value in said.items() if key != LOOSE or value is not None})
    if LOOSE not in kind.__dataclass_fields__:  # type: ignore[attr-defined]  # every caller hands a dataclass
        raise UnknownName(f"'{LOOSE}' is not asked for here; leave it out")
    if not isinstance(loose, dict):
        raise BadInput(f"'{LOOSE}' is no object; send keys and values")
    made = build_settings(kind, {key: value for key, value in said.items() if key != LOOSE})
    return replace(made, **{LOOSE: loose})  # type: ignore[type-var]


def query(request: Request, kind: type[T]) -> T:
    """The same of what stands behind the question mark."""
    return build_settings(kind, dict(request.query_params))


def answer(value: Any, status: int = 200) -> Response:
    """Plain data as JSON; numbers that are none become null."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


async def known_error(request: Request, error: Exception) -> Response:
    """An error of this library: its sentence."""
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 400)
    return answer({"error": str(error)}, status)


async def wrong_path(request: Request, error: Exception) -> Response:
    """A path or method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    return answer({"error": f"there is no {request.method} {request.url.path} here"}, status)


async def dropped(request: Request, error: Exception) -> Response:
    """Nobody reads this."""
    return Response(status_code=499)


async def unknown_error(request: Request, error: Exception) -> Response:
    """Anything else is a fault of ours: a plain sentence on the page; the server logs the whole of it."""
    log.error("%s %s failed", request.method, request.url.path)
    kind = type(error).__name__
    return answer({"error": f"the studio could not do this ({kind}: {error}); its terminal says where"}, 500)


HANDLERS: dict[Any, Any] = {
    ClearstoryError: known_error,
    Dropped: dropped,
    HTTPException: wrong_path,
    Exception: unknown_error,
}
"""What each error becomes."""
