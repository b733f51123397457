"""Help: the help page of a command, made from its settings, in full or one section of it.

Commands with many settings have a short page with the most used flags, and a page for each section.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, get_origin

from clearstory.cli.arguments import COMMON_FLAGS, flag_kind, flag_name
from clearstory.cli.command import Command
from clearstory.errors import UnknownName, nearest
from clearstory.models.families import FAMILIES, Family
from clearstory.recipes.presets import presets_by_kind
from clearstory.recipes.settings.schema import Setting, iter_settings, setting_table, strip_optional

SECTION_TITLES = {
    "": "flags",
    "lora": "lora (low-rank adaptation of an existing model)",
    "embed": "embed (sentence vectors, task embed)",
    "training": "training (a preset may change these defaults)",
    "data": "data (how the text is read)",
}

ALL = "all"
"""Section name for the complete page."""

SHORT_PAGE = 40
"""Number of settings in sections above which the default page is the short one."""

VALUE_NAMES: dict[Any, str] = {int: "N", float: "X", str: "TEXT", tuple: "TEXT", Path: "PATH"}


def command_help(name: str, summary: str, command: Command, section: str | None = ALL) -> str:
    """The help page of one command: usage, summary, example, and flags with their defaults.

    All flags, or those of one section; None gives the short page of a command that has one. Raises UnknownName for a
    section that the command does not have.
    """
    settings = setting_table(command.recipe)
    sections = help_sections(settings)
    names = [*sections, ALL][1:]
    if section is not None and section not in names:
        raise UnknownName(
            f"the help has no section '{section}'; {nearest(section, names)}" if sections.keys() - {""} else
            f"the help has no section '{section}'; it is one page: clearstory help {name}"
        )  # fmt: skip
    if section not in (None, ALL):
        return section_page(name, section or "", sections)
    positionals = [setting for setting in settings.values() if setting.positional]
    usage = " ".join(positional_usage(setting, settings) for setting in positionals)
    parts = [f"usage: clearstory {name} {usage} [flags]".replace("  ", " "), f"{summary[0].upper()}{summary[1:]}."]
    parts.append("\n".join(["example:", *(f"  {each}" for each in (command.example, *command.further_examples))]))
    if positionals:
        parts.append("\n".join(help_row(str(setting.positional), setting.help) for setting in positionals))
    common = [
        help_row(f"{flag_name(key)}{' FILE' if key == 'config' else ''}", text) for key, text in COMMON_FLAGS.items()
    ]
    is_short = sum(len(found) for key, found in sections.items() if key) > SHORT_PAGE
    help_flag = help_row("--help [SECTION]", "show this help, or one section of it, and exit.")
    own = [*setting_rows(sections[""]), *common]
    own.append(help_flag if is_short else help_row("--help", "show this help and exit."))
    parts.append("\n".join(["flags:", *own]))
    nested = {key: found for key, found in sections.items() if key}
    if section is None and is_short:
        return "\n\n".join([*parts, *short_page_end(name, command, nested)])
    return "\n\n".join([*parts, *(section_block(key, found) for key, found in nested.items())])


def help_sections(settings: Mapping[str, Setting]) -> dict[str, dict[str, Setting]]:
    """The settings with a flag by section: "" for those without a dot; the config of a model by its family."""
    sections: dict[str, dict[str, Setting]] = {"": {}}
    for key, setting in settings.items():
        prefix = key.rpartition(".")[0]
        if "overrides" in setting.path:
            for family in FAMILIES:
                sections.setdefault(family.name.lower(), dict(config_settings(family, prefix)))
        elif not setting.positional or prefix:
            sections.setdefault(prefix, {})[key] = setting
    return sections


def config_settings(family: Family, prefix: str) -> Iterable[tuple[str, Setting]]:
    """The fields of a family's config as settings without defaults, which are those of the preset."""
    for setting in iter_settings(family.config, f"{prefix}.", ()):
        yield setting.key, replace(setting, default=None, positional=None)


def section_page(name: str, section: str, sections: Mapping[str, Mapping[str, Setting]]) -> str:
    """The page of one section."""
    more = f"all sections: {' '.join(key for key in sections if key)}; complete help: clearstory help {name} {ALL}"
    return "\n\n".join([f"clearstory {name}", section_block(section, sections[section]), more])


def section_block(section: str, settings: Mapping[str, Setting]) -> str:
    """The title of a section and a row for each setting."""
    family = next((each for each in FAMILIES if each.name.lower() == section), None)
    title = SECTION_TITLES.get(section, section)
    if family is not None:
        title = f"{section} (config of the presets {', '.join(family.presets)})"
    return "\n".join([*wrap(f"{title}:", page_width()), *setting_rows(settings)])


def setting_rows(settings: Mapping[str, Setting]) -> list[str]:
    """A row for each setting, with its default."""
    return [help_row(flag_usage(setting, settings), help_with_default(setting)) for setting in settings.values()]


def short_page_end(name: str, command: Command, sections: Mapping[str, Mapping[str, Setting]]) -> list[str]:
    """The end of a short page: presets by family, the most used settings of the sections, and where the others are."""
    every = {key: setting for settings in sections.values() for key, setting in settings.items()}
    used = {key: every[key] for key in command.common}
    parts = []
    if any(family.name.lower() in sections for family in FAMILIES):
        rows = [help_row(kind, ", ".join(each.name for each in found)) for kind, found in presets_by_kind().items()]
        parts.append("\n".join(["presets (clearstory models shows their sizes):", *rows]))
    if used:
        parts.append("\n".join(["most used settings:", *setting_rows(used)]))
    pages = [
        help_row(section, f"{len(settings)} settings, from {flag_name(next(iter(settings)))}")
        for section, settings in sections.items()
    ]
    pages.append(help_row(ALL, "all settings"))
    return [*parts, "\n".join([f"more: clearstory help {name} SECTION, or --help SECTION", *pages])]


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
    value = setting.default
    if value is True:
        value = f"on; --no-{flag_name(setting.key).removeprefix('--')}"
    elif isinstance(value, tuple):
        value = " ".join(map(str, value))
    return f"{setting.help} [{value}]"


def help_row(flag: str, text: str) -> str:
    """A flag in the left column and its help in the right one, wrapped to the width of the terminal."""
    width = page_width()
    if len(flag) <= 24:
        lines = wrap(text, width - 30) or [""]
        return "\n".join(f"  {flag if index == 0 else '':26}{line}" for index, line in enumerate(lines)).rstrip()
    return "\n".join([f"  {flag}", *(f"  {'':26}{line}" for line in wrap(text, width - 30))])


def page_width() -> int:
    """Columns of a help page: those of the terminal, from 60 to 120."""
    return min(120, max(60, shutil.get_terminal_size().columns))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; names with hyphens are not broken."""
    return textwrap.wrap(text, width, break_on_hyphens=False)
