"""Arguments: parses the words of a command line into values of settings, by dotted key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from clearstory.recipes.settings.other_names import nearest_setting
from clearstory.recipes.settings.schema import Setting, quote_value, strip_optional

COMMON_FLAGS = {
    "json": "print one JSON object on standard output; send everything else to standard error.",
    "config": "read settings from a YAML file; flags on the command line override it.",
    "print_config": "print all settings as YAML, defaults included, and exit.",
}
"""Flags of every command, with their help."""

TEXT_SETTINGS = ("errors", "text_field", "lines", "include", "encoding", "on_error")
"""Settings of how text files are read. Error messages suggest these flags without knowing which command was run."""


class UsageError(Exception):
    """A command line that cannot be parsed."""


NUMBER = re.compile(r"\d+(\.\d+)?[kKmMbB]?")
"""A further number of a flag that takes several."""


def parse_arguments(words: Sequence[str], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values on a command line, by dotted key. In flag names, dashes and underscores are equivalent.

    Values are strings; those of flags that may be repeated are lists of strings, those of switches booleans. Raises
    UsageError for an unknown flag, a missing value, or too many positional arguments. A flag that may be repeated takes
    all numbers that follow its number: --curve 8 32 128.

    >>> from clearstory.recipes.settings.inference import GenerateRecipe
    >>> from clearstory.recipes.settings.schema import setting_table
    >>> parse_arguments(["runs/a", "--max-tokens", "8", "Once"], setting_table(GenerateRecipe))
    {'max_tokens': '8', 'model': 'runs/a', 'prompt': 'Once'}
    """
    values: dict[str, Any] = {}
    positionals: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            positionals += rest
            break
        if not word.startswith("-") or re.fullmatch(r"-|-\.?\d.*", word):
            positionals.append(word)
            continue
        name, equals, value = word.partition("=")
        key = resolve_key(name[2:].replace("-", "_"), settings) if name.startswith("--") else ""
        kind = flag_kind(key, settings)
        if kind is None:
            raise UsageError(unknown_flag(name, key, settings))
        if kind is bool:
            if not equals and rest and rest[0] in ("true", "false"):
                value = rest.pop(0)
            if value not in ("", "true", "false") or (equals and not value):
                raise UsageError(f"{name} is {quote_value(value)}; it must be true or false")
            negated = key not in settings and key.startswith("no_")
            values[key.removeprefix("no_") if negated else key] = (value != "false") != negated
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{name} needs a value; write {name}=VALUE if the value begins with two dashes")
            value = rest.pop(0)
        if kind is tuple:
            values.setdefault(key, []).append(value)
            while NUMBER.fullmatch(value) and rest and NUMBER.fullmatch(rest[0]):
                values[key].append(rest.pop(0))
        else:
            values[key] = value
    return values | assign_positionals(positionals, settings)


def unknown_flag(name: str, key: str, settings: Mapping[str, Setting]) -> str:
    """The error message for an unknown flag, with the nearest existing one."""
    close = nearest_setting(key, [*COMMON_FLAGS, *settings, "help"])
    # The list of all flags would fill a page; --help is that page.
    way_out = f"did you mean {flag_name(close.split(chr(39))[1])}?" if close.startswith("did") else "see --help"
    return f"unknown flag {name}; {way_out}"


def resolve_key(key: str, settings: Mapping[str, Setting]) -> str:
    """The key under which a command has a setting: some have --errors, others --data.errors; each accepts both.

    >>> from clearstory.recipes.settings.schema import setting_table
    >>> from clearstory.recipes.settings.training import TrainRecipe
    >>> resolve_key("errors", setting_table(TrainRecipe))
    'data.errors'
    """
    name = key.removeprefix("data.")
    if key == "data" and "amounts" in settings:  # how much of it; --data.errors and others are how it is read
        return "amounts"
    if key in settings or name not in TEXT_SETTINGS:
        return key
    return name if name in settings else f"data.{name}"


def flag_kind(key: str, settings: Mapping[str, Setting]) -> Any:
    """bool for a switch, tuple for a flag that may be repeated, str for any other; None for an unknown flag."""
    if key in ("json", "print_config"):
        return bool
    if key == "config":
        return tuple
    setting = settings.get(key) or (settings.get(key.removeprefix("no_")) if key.startswith("no_") else None)
    if setting is None:
        return None
    hint = strip_optional(setting.hint)
    if hint is bool:
        return bool
    if key not in settings:
        return None
    return tuple if get_origin(hint) is tuple else str


def assign_positionals(words: Sequence[str], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Positional arguments assigned to the positional settings in order; a list takes all that remain."""
    values: dict[str, Any] = {}
    rest = list(words)
    positionals = [setting for setting in settings.values() if setting.positional]
    for setting in positionals:
        if not rest:
            break
        if flag_kind(setting.key, settings) is tuple:
            values[setting.key], rest = rest, []
        else:
            values[setting.key] = rest.pop(0)
    if rest:
        accepted = " ".join(setting.positional or "" for setting in positionals) or "no positional arguments"
        raise UsageError(f"unexpected argument {quote_value(rest[0])}; this command takes {accepted}")
    return values


def flag_name(key: str) -> str:
    """A key as it is written on the command line: --max-tokens, --training.learning_rate."""
    return f"--{key}" if "." in key else f"--{key.replace('_', '-')}"
