"""Fields: a settings dataclass from what people write, whether as flags, YAML, JSON or Python, and back again.

Keys are dotted paths ("training.learning_rate"). One table drives the flags, the files, the help and the forms, so
they cannot disagree; a key that is in no table is an error with the nearest real name.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from clearstory.errors import BadSetting, UnknownName, nearest

T = TypeVar("T")

INLINE_SECTION = {"flat": True}
"""Metadata of a section whose fields go by their plain names: `--temperature`, not `--sampling.temperature`."""

SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def positional_setting(name: str, default: Any = MISSING) -> Any:
    """A field that is given by its place on the command line and called NAME in the help."""
    if default is MISSING:
        return field(metadata={"positional": name})
    return field(default=default, metadata={"positional": name})


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, where it lives in the dataclass, what it may be, and a line of help."""

    key: str
    path: tuple[str, ...]
    hint: Any
    default: Any
    help: str
    positional: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values a choice may take; none for anything else."""
        bare = strip_optional(self.hint)
        return get_args(bare) if get_origin(bare) is Literal else ()


def setting_table(settings: type[Any]) -> dict[str, Setting]:
    """Every setting of a dataclass and of the dataclasses in it, by its dotted key.

    >>> from clearstory.training.settings import TrainingSettings
    >>> table(TrainingSettings)["batch_size"].help
    'rows in each micro-batch.'
    """
    return {row.key: row for row in walk(settings, "", ())}


def walk(settings: type[Any], prefix: str, path: tuple[str, ...]) -> Iterator[Setting]:
    """The rows of `table`, in the order they are written."""
    hints = typing.get_type_hints(settings)
    helps = argument_help(settings)
    for own in fields(settings):
        key, place, hint = prefix + own.name, (*path, own.name), hints[own.name]
        if hasattr(hint, "overridable"):  # a name, and fields of what it names
            yield Setting(
                key, (*place, "name"), str, default(own), helps.get(own.name, ""), own.metadata.get("positional")
            )
            named: dict[str, Setting] = {}
            for config in hint.overridable():  # where two have a field of one name, the first explains it
                for row in walk(config, f"{key}.", (*place, "overrides")):
                    named.setdefault(row.key, Setting(row.key, row.path, row.hint, None, row.help))
            yield from named.values()
        elif is_dataclass(hint):
            yield from walk(typing.cast(type, hint), prefix if own.metadata.get("flat") else f"{key}.", place)
        else:
            yield Setting(key, place, hint, default(own), helps.get(own.name, ""), own.metadata.get("positional"))


def default(own: Any) -> Any:
    """A field's default, MISSING when it must be given."""
    value = own.default if own.default_factory is MISSING else own.default_factory()
    return value.name if hasattr(type(value), "overridable") else value


def argument_help(settings: type[Any]) -> dict[str, str]:
    """What a docstring's "Args:" says of each field."""
    block = (settings.__doc__ or "").partition("Args:")[2]
    found: dict[str, str] = {}
    for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {9,}\S.*)*)", block, re.MULTILINE):
        found[name] = " ".join(text.split())
    return found


def build_settings(settings: type[T], given: Mapping[str, Any]) -> T:
    """The settings with these values, given nested or dotted; all others keep their defaults.

    Raises UnknownName for a key that does not exist, BadSetting for a value that cannot be.

    >>> from clearstory.generation.settings import Sampling
    >>> build(Sampling, {"top_k": "40"}).top_k
    40
    """
    known = setting_table(settings)
    tree: dict[str, Any] = {}
    for key, value in flatten_keys(settings, given).items():
        *sections, last = known[key].path
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = convert_value(value, known[key].hint, key)
    return assemble(settings, tree)


def flatten_keys(settings: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under their dotted keys. Raises UnknownName for a key that is not a setting."""
    known = setting_table(settings)
    found: dict[str, Any] = {}
    for key, value in leaves(given, ""):
        name = key.replace("-", "_")
        if name not in known and name.endswith(".name") and name.removesuffix(".name") in known:
            name = name.removesuffix(".name")
        if name in known:
            found[name] = value
        elif value is not None or not any(
            other.startswith(f"{name}.") for other in known
        ):  # an empty section says nothing
            raise UnknownName(f"there is no setting called '{key}'; {nearest(name, known)}")
    return found


def leaves(given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings and dataclasses."""
    for name, value in given.items():
        key = f"{prefix}{name}"
        if is_dataclass(value) and not isinstance(value, type):
            value = to_plain(value)
        if isinstance(value, Mapping):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def assemble(settings: type[T], tree: Mapping[str, Any]) -> T:
    """A dataclass from converted values, its sections first."""
    hints = typing.get_type_hints(settings)
    values: dict[str, Any] = {}
    for own in fields(settings):  # type: ignore[arg-type]  # every caller hands a dataclass
        if own.name in tree:
            inner = tree[own.name]
            values[own.name] = assemble(hints[own.name], inner) if is_dataclass(hints[own.name]) else inner
        elif default(own) is MISSING:
            name = own.metadata.get("positional", own.name)
            raise BadSetting(f"{name} is missing; {argument_help(settings).get(own.name, 'it must be given')}")
    return settings(**values)


def strip_optional(hint: Any) -> Any:
    """X of `X | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    return hint


def convert_value(value: Any, hint: Any, key: str) -> Any:
    """A value of the type a field has, from itself or from text. Raises BadSetting.

    >>> convert("1.5M", int, "parameters")
    1500000
    """
    bare = strip_optional(hint)
    if bare is not hint and (value is None or value == "null"):
        return None
    kind = get_origin(bare) or bare
    if kind is Literal:
        if value in get_args(bare) and isinstance(value, str):
            return value
        raise BadSetting(f"{key} is {shown(value)}; {nearest(str(value), get_args(bare))}")
    if kind is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)):
            return tuple(convert_value(item, get_args(bare)[0], key) for item in items)
    elif kind is Path:
        if isinstance(value, (str, Path)) and str(value):
            return Path(value).expanduser()
    elif kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool) or value in ("true", "false"):
            return value in (True, "true")
    elif kind is int:
        if (count := whole(value)) is not None:
            return count
    elif kind is float:
        if (number := real(value)) is not None:
            return number
    elif isinstance(value, kind):
        return value
    raise BadSetting(f"{key} is {shown(value)}; it must be {WORDS[kind]}{' or null' if bare is not hint else ''}")


WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number (300k, 3M and 1.5B are understood)",
    float: "a number",
    str: "text",
    tuple: "a list",
    Path: "a path",
    dict: "a table of keys and values",
}


def shown(value: Any) -> str:
    """A value as its writer wrote it."""
    return f"'{value}'" if isinstance(value, str) else "null" if value is None else str(value)


def whole(value: Any) -> int | None:
    """A whole number from a number or from text such as 10_000, 300k, 1.5B; None from anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.fullmatch(r"([+-]?[\d_,]*\d(?:\.\d+)?)\s*([kmb]?)", value.strip().lower())
        if match is None:
            number = real(value)
        else:
            number = float(match[1].replace(",", "").replace("_", "")) * SCALE[match[2]]
            if match[2] == "" and "." not in match[1]:
                return int(match[1].replace(",", ""))  # exact past 2**53
        # 1.1B is 1100000000.0000001 in binary.
        value = None if number is None else round(number, 3)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def real(value: Any) -> float | None:
    """A finite number from a number or from text; None from anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dictionaries of plain values, under the keys that `build` reads: ready for JSON and YAML."""
    found: dict[str, Any] = {}
    for own in fields(settings):
        value = getattr(settings, own.name)
        if hasattr(type(value), "overridable"):
            changed = {key: list(item) if isinstance(item, tuple) else item for key, item in value.overrides.items()}
            found[own.name] = {"name": value.name, **changed} if changed else value.name
        elif is_dataclass(value):
            found.update(to_plain(value) if own.metadata.get("flat") else {own.name: to_plain(value)})
        elif isinstance(value, Path):
            found[own.name] = str(value)
        else:
            found[own.name] = list(value) if isinstance(value, tuple) else value
    return found
