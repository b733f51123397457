"""Schema of settings: dataclasses built from flags, YAML, JSON or Python values, and written back as plain values.

Keys are dotted paths ("training.learning_rate"). `setting_table` lists the settings of a dataclass; command-line flags,
YAML files, help texts and the studio's forms are all derived from it. An unknown key is an error that names the nearest
existing key.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from clearstory.durable.paths import expand_home
from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.recipes.settings.other_names import nearest_setting

T = TypeVar("T")

INLINE_SECTION = {"inline": True}
"""Metadata of a nested dataclass whose fields keep their plain names: `--temperature`, not `--sampling.temperature`."""

NUMBER_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def positional_setting(name: str, default: Any = MISSING) -> Any:
    """A dataclass field given as a positional argument on the command line, shown as `name` in the help."""
    if default is MISSING:
        return field(metadata={"positional": name})
    return field(default=default, metadata={"positional": name})


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, its path of attribute names in the dataclass, its type, default and help line."""

    key: str
    path: tuple[str, ...]
    hint: Any
    default: Any
    help: str
    positional: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values of a Literal; empty for every other type."""
        inner = strip_optional(self.hint)
        return get_args(inner) if get_origin(inner) is Literal else ()


def setting_table(settings: type[Any]) -> Mapping[str, Setting]:
    """All settings of a dataclass and of the dataclasses nested in it, by dotted key; read-only.

    >>> from clearstory.training.settings import TrainingSettings
    >>> setting_table(TrainingSettings)["batch_size"].help
    'sequences in each micro-batch.'
    """
    if settings not in _TABLES:
        _TABLES[settings] = MappingProxyType({setting.key: setting for setting in iter_settings(settings, "", ())})
    return _TABLES[settings]


_TABLES: dict[type[Any], Mapping[str, Setting]] = {}
"""Tables by settings class: resolving the type hints of a recipe takes 20 ms."""


def iter_settings(settings: type[Any], prefix: str, path: tuple[str, ...]) -> Iterator[Setting]:
    """The settings of a dataclass in the order of its fields, keys starting with `prefix`."""
    hints = typing.get_type_hints(settings)
    helps = argument_help(settings)
    for each in fields(settings):
        if each.metadata.get("derived"):  # follows from others
            continue
        key, attributes, hint = prefix + each.name, (*path, each.name), hints[each.name]
        help_line, positional = helps.get(each.name, ""), each.metadata.get("positional")
        if hasattr(hint, "config_classes"):  # a preset's name, followed by the fields of its config
            yield Setting(key, (*attributes, "name"), str, default_value(each), help_line, positional)
            overrides: dict[str, Setting] = {}
            for config in hint.config_classes():  # of a field that several configs have, the first one's help is shown
                for setting in iter_settings(config, f"{key}.", (*attributes, "overrides")):
                    overrides.setdefault(setting.key, replace(setting, default=None, positional=None))
            yield from overrides.values()
        elif is_dataclass(hint):
            inner = prefix if each.metadata.get("inline") else f"{key}."
            yield from iter_settings(typing.cast(type, hint), inner, attributes)
        else:
            yield Setting(key, attributes, hint, default_value(each), help_line, positional)


def default_value(field: Any) -> Any:
    """The default of a dataclass field; MISSING where the field is required."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return value.name if hasattr(type(value), "config_classes") else value


def argument_help(settings: type[Any]) -> dict[str, str]:
    """The help text of each field, from the "Args:" blocks of the docstrings of the class and its bases."""
    blocks = [(each.__doc__ or "").partition("Args:")[2] for each in reversed(settings.__mro__)]
    lines = [line for block in blocks for line in re.findall(r"^ {8}(\w+): (.*(?:\n {9,}\S.*)*)", block, re.MULTILINE)]
    return {name: " ".join(text.split()) for name, text in lines}


def build_settings(settings: type[T], values: Mapping[str, Any]) -> T:
    """A settings dataclass with these values, given nested or under dotted keys; other fields keep their defaults.

    Raises UnknownName for an unknown key, BadSetting for an invalid value.

    >>> from clearstory.generation.settings import Sampling
    >>> build_settings(Sampling, {"top_k": "40"}).top_k
    40
    """
    table = setting_table(settings)
    tree: dict[str, Any] = {}
    for key, value in flatten_keys(settings, values).items():
        *sections, last = table[key].path
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = convert_value(value, table[key].hint, key)
    return instantiate(settings, tree)


def flatten_keys(settings: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under their dotted keys. Raises UnknownName for a key that is not a setting."""
    table = setting_table(settings)
    flat: dict[str, Any] = {}
    for key, value in iter_leaves(values, ""):
        name = key.replace("-", "_")
        if name not in table and name.endswith(".name") and name.removesuffix(".name") in table:
            name = name.removesuffix(".name")
        if name in table:
            flat[name] = value
        elif value is not None or not any(other.startswith(f"{name}.") for other in table):
            raise UnknownName(f"there is no setting called '{key}'; {nearest_setting(name, table)}")
        # else an empty YAML section ("training:"), which sets nothing
    return flat


def iter_leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings and dataclasses."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if is_dataclass(value) and not isinstance(value, type):
            value = to_plain(value)
        if isinstance(value, Mapping):
            yield from iter_leaves(value, f"{key}.")
        else:
            yield key, value


def instantiate(settings: type[T], tree: Mapping[str, Any]) -> T:
    """A dataclass from a tree of converted values, nested dataclasses first. Raises BadSetting for a missing value."""
    hints = typing.get_type_hints(settings)
    values: dict[str, Any] = {}
    for each in fields(settings):  # type: ignore[arg-type]  # every caller hands a dataclass
        if each.name in tree:
            value, hint = tree[each.name], hints[each.name]
            nested = is_dataclass(hint)
            values[each.name] = instantiate(typing.cast(type, hint), value) if nested else value
        elif default_value(each) is MISSING:
            name = each.metadata.get("positional", each.name)
            raise BadSetting(f"{name} is missing; {argument_help(settings).get(each.name, 'it is required')}")
    return settings(**values)


def strip_optional(hint: Any) -> Any:
    """The type X of `X | None`; any other type as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    return hint


def convert_value(value: Any, hint: Any, key: str) -> Any:
    """A value converted to the type of its setting, from that type or from text. Raises BadSetting.

    >>> convert_value("1.5M", int, "parameters")
    1500000
    """
    inner = strip_optional(hint)
    if inner is not hint and (value is None or value == "null"):
        return None
    kind = get_origin(inner) or inner
    if kind is Literal:
        if value in get_args(inner) and isinstance(value, str):
            return value
        raise BadSetting(f"{key} is {quote_value(value)}; {nearest(str(value), get_args(inner))}")
    if kind is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)):
            if get_args(inner)[0] is int:  # 0,4,16 too
                items = [each for item in items for each in (item.split(",") if isinstance(item, str) else [item])]
            return tuple(convert_value(item, get_args(inner)[0], key) for item in items)
    elif kind is Path:
        if isinstance(value, (str, Path)) and str(value) and "\0" not in str(value):
            return expand_user(value)
    elif kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool) or value in ("true", "false"):
            return value in (True, "true")
    elif kind is int:
        if (count := parse_int(value)) is not None:
            if abs(count) >= 2**63:
                raise BadSetting(f"{key} is {quote_value(value)}, too large for 64 bits; give a smaller number")
            return count
    elif kind is float:
        if (number := parse_float(value)) is not None:
            return number
    elif isinstance(value, kind):
        return value
    expected = TYPE_DESCRIPTIONS[kind] + (" or null" if inner is not hint else "")
    raise BadSetting(f"{key} is {quote_value(value)}; it must be {expected}")


def expand_user(path: str | Path) -> Path:
    """The path with ~ replaced by the home folder; as it is where the home folder of a user is unknown."""
    try:
        return expand_home(path)
    except RuntimeError:
        return Path(path)


def check_output_path(path: str | Path | None, key: str = "out") -> None:
    """Raise BadSetting for the name of an output that is not UTF-8: config files and safetensors could not hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise BadSetting(f"{key} is '{shown}', a name that is not UTF-8; choose another one") from None


FILE_SUFFIXES = (
    ".html", ".svg", ".png", ".pdf", ".csv", ".tsv", ".json", ".jsonl", ".md", ".txt", ".gguf", ".safetensors",
)  # fmt: skip
"""Suffixes of files that no output folder is named after on purpose."""


def check_output_folder(path: str | Path | None, key: str = "out") -> None:
    """Raise BadSetting for the name of an output folder that does not exist and has the suffix of a file.

    >>> check_output_folder("runs/book")
    >>> check_output_folder("runs/book.html")
    Traceback (most recent call last):
    clearstory.errors.BadSetting: out is runs/book.html, but the output is a folder; name it without .html
    """
    check_output_path(path)
    if path is not None and Path(path).suffix.lower() in FILE_SUFFIXES and not Path(path).exists():
        raise BadSetting(f"{key} is {path}, but the output is a folder; name it without {Path(path).suffix}")


TYPE_DESCRIPTIONS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer (300k, 3M and 1.5B are accepted)",
    float: "a number",
    str: "text",
    tuple: "a list",
    Path: "a path",
    dict: "a mapping of keys to values",
}


def quote_value(value: Any) -> str:
    """A value as text for an error message, strings in quotes."""
    try:
        text = f"'{value}'" if isinstance(value, str) else "null" if value is None else str(value)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number with thousands of digits"
    return text if len(text) <= 200 else f"{text[:100]} … {text[-60:]}"


def parse_int(value: Any) -> int | None:
    """The integer of a number or of text such as 10_000, 300k or 1.5B; None for anything else.

    >>> parse_int("1,234"), parse_int("1,2")  # a list of two numbers is not 12
    (1234, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([+-]?(?:[\d_]*\d|\d{1,3}(?:,\d{3})+)(?:\.\d+)?)\s*([kmb]?)", value.strip().lower())
        if match is None:
            number = parse_float(value)
        else:
            number = float(match[1].replace(",", "").replace("_", "")) * NUMBER_SUFFIXES[match[2]]
            if match[2] == "" and "." not in match[1]:
                digits = match[1].replace(",", "").replace("_", "")
                return int(digits) if len(digits) <= 40 else 10**40  # exact past 2**53; int() refuses 4,300 digits
        # 1.1B is 1100000000.0000001 in binary; 1e-320 is not 0.
        value = number if number is None or (number and not round(number, 3)) else round(number, 3)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def parse_float(value: Any) -> float | None:
    """The finite float of a number or of text; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dictionaries of plain values with the keys that `build_settings` reads, for JSON and YAML."""
    values: dict[str, Any] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if hasattr(type(value), "config_classes"):
            overrides = {key: list(item) if isinstance(item, tuple) else item for key, item in value.overrides.items()}
            values[each.name] = {"name": value.name, **overrides} if overrides else value.name
        elif is_dataclass(value):
            values.update(to_plain(value) if each.metadata.get("inline") else {each.name: to_plain(value)})
        elif isinstance(value, Path):
            values[each.name] = str(value)
        else:
            values[each.name] = list(value) if isinstance(value, tuple) else value
    return values
