"""Standard input, read as text where a command line names `-` or is at the end of a pipe."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import fields, replace
from typing import Any

from clearstory.errors import BadInput

STANDARD_INPUT = "-"
"""The argument on a command line that selects standard input."""


def has_piped_input() -> bool:
    """Whether standard input is a pipe or a file: not a terminal, and not closed or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # no standard input, or one that is no file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def replace_standard_input(recipe: Any) -> Any:
    """A recipe in which each positional text that is `-` is what standard input holds.

    A single text is replaced by its contents, one of several by a file with them, which is read as files are.
    """
    for each in fields(recipe):
        value = getattr(recipe, each.name)
        if each.metadata.get("positional") not in ("TEXT", "PROMPT"):
            continue
        if value == STANDARD_INPUT:
            recipe = replace(recipe, **{each.name: read_standard_input()})
        elif isinstance(value, tuple) and STANDARD_INPUT in value:
            from clearstory.text.sources import save_standard_input

            file = str(save_standard_input())
            recipe = replace(recipe, **{each.name: tuple(file if text == STANDARD_INPUT else text for text in value)})
    return recipe


def read_standard_input() -> str:
    """All of standard input, without the line feed at its end. Raises BadInput if it is not UTF-8."""
    if sys.stdin is None:
        raise BadInput("there is no standard input; give the text as an argument")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"standard input is not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start:,}); "
            "convert it, for example with iconv"
        ) from None
    return text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
