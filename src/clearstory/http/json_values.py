"""JSON values: bodies of requests as objects, and values of any kind as JSON in UTF-8."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.http.display_text import one_line

PIECE = 50
"""Number of list items that are encoded together."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body. Raises BadInput for anything else."""
    try:
        value = json.loads(body, parse_constant=refuse_constant)
    except BadInput:
        raise
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(str(error), 120)
        raise BadInput(f"the request body is not JSON ({reason}); send an object") from None
    if not isinstance(value, dict):
        raise BadInput("the request body is JSON but not an object; send {...}")
    return value


def refuse_constant(name: str) -> None:
    """Raises BadInput: NaN and Infinity are not JSON, though Python reads them."""
    raise BadInput(f"the request body contains {name}, which is not valid JSON; send a finite number or null")


def json_bytes(value: Any) -> bytes:
    """A value as JSON in UTF-8; NaN and infinities become null, and parts of characters "?"."""
    return "".join(json_pieces(value)).encode("utf-8", errors="replace")


def json_pieces(value: Any) -> Iterator[str]:
    """The JSON of a value in pieces of a few milliseconds: Python's encoder lets no other thread run meanwhile."""
    if isinstance(value, Mapping) and value:
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{encode_json(str(key))}:"
            yield from json_pieces(item)
        yield "}"
    elif isinstance(value, list | tuple) and len(value) > PIECE:
        for start in range(0, len(value), PIECE):
            yield ("," if start else "[") + encode_json(value[start : start + PIECE])[1:-1]
        yield "]"
    else:
        yield encode_json(value)


def encode_json(value: Any) -> str:
    """A value as JSON text."""
    return json.dumps(to_json_value(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_json_value(value: Any) -> Any:
    """The value with tuples as lists, paths as strings, and non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
