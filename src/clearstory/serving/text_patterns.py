"""Texts without quotes that follow a JSON schema, as expressions of a grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clearstory.generation.json_schema import JSONSchemaError, join_path

MAX_LENGTH = 1000
"""Largest minLength and maxLength of a text without quotes; larger ones take too much time to count."""

ANY_TEXT = r"(.|\n)*"

FORMATS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
FORMATS["date-time"] = f"{FORMATS['date']}T{FORMATS['time']}"


def text_pattern(schema: Mapping[str, Any], path: str) -> str:
    """What a text matches, as an expression of a grammar. Raises JSONSchemaError for what is not supported."""
    parts = []
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    if least or most is not None:
        if max(least, most or 0) > MAX_LENGTH:
            word = "maxLength" if (most or 0) > MAX_LENGTH else "minLength"
            raise JSONSchemaError(
                join_path(path, word),
                f"is {schema[word]:,}; this model's calls support at most {MAX_LENGTH:,}, so omit it",
            )
        parts.append(rf"/(.|\n){{{least},{'' if most is None else int(most)}}}/")
    if "pattern" in schema:
        parts.append(between_slashes(whole_text(schema["pattern"], join_path(path, "pattern"))))
    if "format" in schema:
        if schema["format"] not in FORMATS:
            raise JSONSchemaError(
                join_path(path, "format"),
                f"is '{schema['format']}'; this model's calls support {', '.join(FORMATS)}, so use pattern or omit it",
            )
        parts.append(between_slashes(FORMATS[schema["format"]]))
    return f"({' & '.join(parts)})"


def whole_text(pattern: str, path: str) -> str:
    """A regular expression that matches the whole texts in which `pattern` is found.

    >>> whole_text("^[a-z]+", "pattern")
    '([a-z]+)(.|\\\\n)*'
    """
    begins, ends = pattern.startswith("^"), re.search(r"(?<!\\)(\\\\)*\$$", pattern) is not None
    inner = pattern[begins : len(pattern) - ends]
    plain = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", inner)  # without escapes and classes
    if re.search(r"[\^$]", plain) or ((begins or ends) and has_outer_alternatives(plain)):
        raise JSONSchemaError(
            path, f"is '{pattern[:60]}'; this model's calls support ^ only at its beginning and $ only at its end"
        )
    return ("" if begins else ANY_TEXT) + f"({inner})" + ("" if ends else ANY_TEXT)


def has_outer_alternatives(pattern: str) -> bool:
    """Whether a regular expression without escapes and classes has alternatives outside of parentheses."""
    while (inner := re.sub(r"\([^()]*\)", "", pattern)) != pattern:
        pattern = inner
    return "|" in pattern


def between_slashes(pattern: str) -> str:
    """A regular expression in a grammar."""
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern) + "/"
