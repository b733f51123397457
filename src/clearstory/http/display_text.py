"""Display text: external texts on one line and as valid Unicode."""

from __future__ import annotations

import re


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded as UTF-8: file names and JSON may hold parts of characters (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def displayable(text: str) -> str:
    """The text with U+FFFD in place of every part of a character."""
    return text if is_unicode(text) else re.sub("[\ud800-\udfff]+", "�", text)


def one_line(text: str, limit: int) -> str:
    """The text on one line, without control characters, shortened in the middle if it is longer than the limit."""
    line = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", displayable(text)).strip()
    half = limit // 2
    return line if len(line) <= limit else f"{line[:half]} … {line[-half:]}"
