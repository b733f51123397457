"""Help: a command's page, written from its settings."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_origin

from clearstory.cli.command import COMMON, Command, flag, flag_kind
from clearstory.recipes.settings.schema import Setting, setting_table, strip_optional


def page(name: str, line: str, command: Command) -> str:
    """The help of one command: usage, an example, and every flag with its default."""
    known = setting_table(command.recipe)
    places = [row for row in known.values() if row.positional]
    usage = " ".join(place(row, known) for row in places)
    parts = [f"usage: clearstory {name} {usage} [flags]".replace("  ", " "), f"{line[0].upper()}{line[1:]}."]
    parts.append(f"example:\n  {command.example}")
    if places:
        parts.append("\n".join(entry(str(row.positional), row.help) for row in places))
    sections: dict[str, list[str]] = {"": []}
    for key, row in known.items():
        if not row.positional or "." in key:
            section = key.rpartition(".")[0]
            sections.setdefault(section, []).append(entry(usage_of(row, known), describe(row)))
    common = [entry(f"{flag(key)}{' FILE' if key == 'config' else ''}", text) for key, text in COMMON.items()]
    sections[""] += [*common, entry("--help", "this page.")]
    for section, rows in sections.items():
        parts.append("\n".join([f"{TITLES.get(section, section)}:", *rows]))
    return "\n\n".join(parts)


TITLES = {
    "": "flags",
    "model": "model (differences from the preset)",
    "training": "training (a preset may bring other defaults)",
}


def place(row: Setting, known: dict[str, Setting]) -> str:
    """TEXT..., MODEL or [PROMPT]."""
    word = f"{row.positional}..." if flag_kind(row.key, known) is tuple else str(row.positional)
    return word if row.default is MISSING or word.endswith("...") else f"[{word}]"


def usage_of(row: Setting, known: dict[str, Setting]) -> str:
    """A flag and what it takes."""
    if flag_kind(row.key, known) is bool:
        return flag(row.key)
    if row.choices:
        return f"{flag(row.key)} {'|'.join(row.choices)}"
    bare: Any = strip_optional(row.hint)
    return f"{flag(row.key)} {KINDS.get(get_origin(bare) or bare, 'VALUE')}"


KINDS: dict[Any, str] = {int: "N", float: "X", str: "NAME", tuple: "TEXT", Path: "PATH"}


def describe(row: Setting) -> str:
    """The line of help, and the default where it says something."""
    if row.default is None or row.default is MISSING or row.default is False or row.default in ((), ""):
        return row.help
    return f"{row.help} [{f'on; --no-{row.key}' if row.default is True else row.default}]"


def entry(left: str, right: str) -> str:
    """A flag on the left, what it does on the right, within the terminal's width."""
    width = min(120, max(60, shutil.get_terminal_size().columns))
    lines: Iterable[str] = textwrap.wrap(right, width - 6) or [""]
    if len(left) <= 24:
        lines = textwrap.wrap(right, width - 30) or [""]
        return "\n".join(f"  {left if i == 0 else '':26}{text}" for i, text in enumerate(lines)).rstrip()
    return "\n".join([f"  {left}", *(f"  {'':26}{text}" for text in textwrap.wrap(right, width - 30))])
