"""Help: the help page of a command, written from its settings."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_origin

from clearstory.cli.arguments import COMMON_FLAGS, flag_kind, flag_name
from clearstory.cli.command import Command
from clearstory.recipes.settings.schema import Setting, setting_table, strip_optional

SECTION_TITLES = {
    "": "flags",
    "model": "model (overrides of the preset)",
    "training": "training (a preset may change these defaults)",
}

VALUE_NAMES: dict[Any, str] = {int: "N", float: "X", str: "NAME", tuple: "TEXT", Path: "PATH"}


def command_help(name: str, summary: str, command: Command) -> str:
    """The help page of one command: usage, summary, example, and every flag with its default."""
    settings = setting_table(command.recipe)
    positionals = [setting for setting in settings.values() if setting.positional]
    usage = " ".join(positional_usage(setting, settings) for setting in positionals)
    parts = [f"usage: clearstory {name} {usage} [flags]".replace("  ", " "), f"{summary[0].upper()}{summary[1:]}."]
    parts.append(f"example:\n  {command.example}")
    if positionals:
        parts.append("\n".join(help_row(str(setting.positional), setting.help) for setting in positionals))
    sections: dict[str, list[str]] = {"": []}
    for key, setting in settings.items():
        if not setting.positional or "." in key:
            section = key.rpartition(".")[0]
            sections.setdefault(section, []).append(help_row(flag_usage(setting, settings), help_with_default(setting)))
    common = [
        help_row(f"{flag_name(key)}{' FILE' if key == 'config' else ''}", text) for key, text in COMMON_FLAGS.items()
    ]
    sections[""] += [*common, help_row("--help", "show this page and exit.")]
    for section, rows in sections.items():
        parts.append("\n".join([f"{SECTION_TITLES.get(section, section)}:", *rows]))
    return "\n\n".join(parts)


def positional_usage(setting: Setting, settings: Mapping[str, Setting]) -> str:
    """TEXT..., MODEL or [PROMPT]."""
    word = f"{setting.positional}..." if flag_kind(setting.key, settings) is tuple else str(setting.positional)
    return word if setting.default is MISSING or word.endswith("...") else f"[{word}]"


def flag_usage(setting: Setting, settings: Mapping[str, Setting]) -> str:
    """A flag with the kind of value that it takes: --top-k N, --windows strided|blocks."""
    if flag_kind(setting.key, settings) is bool:
        return flag_name(setting.key)
    if setting.choices:
        return f"{flag_name(setting.key)} {'|'.join(setting.choices)}"
    hint: Any = strip_optional(setting.hint)
    kind = int if hint == tuple[int, ...] else get_origin(hint) or hint
    return f"{flag_name(setting.key)} {VALUE_NAMES.get(kind, 'VALUE')}"


def help_with_default(setting: Setting) -> str:
    """The help text of a setting, followed by its default in brackets unless that is empty or off."""
    if setting.default is None or setting.default is MISSING or setting.default is False or setting.default in ((), ""):
        return setting.help
    return f"{setting.help} [{f'on; --no-{setting.key}' if setting.default is True else setting.default}]"


def help_row(flag: str, text: str) -> str:
    """A flag in the left column and its help in the right one, wrapped to the width of the terminal."""
    width = min(120, max(60, shutil.get_terminal_size().columns))
    if len(flag) <= 24:
        lines = wrap(text, width - 30) or [""]
        return "\n".join(f"  {flag if index == 0 else '':26}{line}" for index, line in enumerate(lines)).rstrip()
    return "\n".join([f"  {flag}", *(f"  {'':26}{line}" for line in wrap(text, width - 30))])


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; names with hyphens are not broken."""
    return textwrap.wrap(text, width, break_on_hyphens=False)
