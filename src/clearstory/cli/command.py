"""Command: the words after a command's name become its settings, and its answer becomes text or JSON."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearstory.errors import ClearstoryError, nearest
from clearstory.recipes.settings.schema import Setting, build_settings, setting_table
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml
from clearstory.recipes.settings.training import merge

if TYPE_CHECKING:
    from rich.console import Console


class UsageError(Exception):
    """A command line that cannot be understood."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One verb on the command line.

    Args:
        recipe: the dataclass of its settings.
        run: does it; what it returns is the JSON object. None where it has told that itself.
        example: a command line that works.
        build: makes the recipe from what was said.
    """

    recipe: type[Any]
    run: Callable[[Any, Talk], Mapping[str, Any] | None]
    example: str
    build: Callable[[Mapping[str, Any]], Any] | None = None


@dataclass(frozen=True)
class Talk:
    """Where a command says what. With --json, standard output belongs to the JSON object alone."""

    json: bool = False

    @property
    def out(self) -> Console:
        """For the answer itself."""
        return console(stderr=self.json)

    @property
    def aside(self) -> Console:
        """For progress and remarks."""
        return console(stderr=True)

    def write(self, text: str) -> None:
        """A piece of the answer as it is, at once: for text that comes token by token."""
        stream = sys.stderr if self.json else sys.stdout
        stream.write(text)
        stream.flush()

    def tell(self, answer: Mapping[str, Any]) -> None:
        """The JSON object, at once: by itself only for a command that goes on afterwards."""
        print(json.dumps(jsonable(answer), ensure_ascii=False, allow_nan=False), flush=True)


def console(stderr: bool) -> Console:
    """A rich console that honours NO_COLOR and leaves numbers and brackets in text alone."""
    import os

    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True, color_system=None if plain else "auto")


COMMON = {
    "json": "one JSON object on standard output, everything else on standard error.",
    "config": "settings from a YAML file; the command line wins over it.",
    "print_config": "write all the settings as YAML, defaults included, and do nothing else.",
}
"""Flags that every command has."""


def understand(command: Command, words: Sequence[str]) -> Callable[[], None]:
    """What the words ask for, ready to be run. Raises UsageError or a ClearstoryError that says what does not exist."""
    said = read(words, setting_table(command.recipe))
    talk = Talk(json=said.pop("json", False))
    printing = said.pop("print_config", False)
    layers: list[Mapping[str, Any]] = []
    for file in said.pop("config", []):
        values = read_yaml(Path(file))
        try:
            layers.append(merge(command.recipe, values))
            build_settings(command.recipe, {**needed(command.recipe), **layers[-1]})
        except ClearstoryError as error:
            raise UsageError(f"{file}: {error}") from error
    make = command.build or (lambda given: build_settings(command.recipe, given))
    recipe = make(merge(command.recipe, *layers, said))
    if printing:
        return lambda: print(to_yaml(recipe), end="")

    def task() -> None:
        answer = command.run(recipe, talk)
        if talk.json and answer is not None:
            talk.tell(answer)

    return task


def needed(recipe: type[Any]) -> dict[str, Any]:
    """Stand-ins for what must be given on the command line, so that a file can be checked without it."""
    from dataclasses import MISSING

    return {key: key for key, row in setting_table(recipe).items() if row.default is MISSING}


def read(words: Sequence[str], known: Mapping[str, Setting]) -> dict[str, Any]:
    """Flags and places as dotted keys with their words. Dashes and underscores in names are the same.

    >>> from clearstory.recipes.settings.inference import GenerateRecipe
    >>> read(["runs/a", "--max-tokens", "8", "Once"], table(GenerateRecipe))
    {'max_tokens': '8', 'model': 'runs/a', 'prompt': 'Once'}
    """
    said: dict[str, Any] = {}
    places: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            places += waiting
            break
        if not word.startswith("-") or re.fullmatch(r"-|-\.?\d.*", word):
            places.append(word)
            continue
        name, equals, value = word.partition("=")
        key = known_as(name[2:].replace("-", "_"), known) if name.startswith("--") else ""
        if (kind := flag_kind(key, known)) is None:
            flags = [*COMMON, *known, "help"]
            close = nearest(key, flags)
            # The whole list would be a page; the help is one.
            way = f"did you mean {flag(close.split(chr(39))[1])}?" if close.startswith("did") else "see --help"
            raise UsageError(f"there is no flag {name}; {way}")
        if kind is bool:
            on = not (key not in known and key.startswith("no_"))
            if not equals and waiting and waiting[0] in ("true", "false"):
                equals, value = "=", waiting.pop(0)
            if equals and value not in ("true", "false"):
                raise UsageError(f"{name} is '{value}'; it must be true or false")
            said[key if on else key[3:]] = (value != "false") == on
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UsageError(f"{name} needs a value; write {name}=VALUE where it begins with two dashes")
            value = waiting.pop(0)
        if kind is tuple:
            said.setdefault(key, []).append(value)
        else:
            said[key] = value
    return said | by_place(places, known)


READING = ("errors", "text_field")
"""Settings of how text is read. The sentences that name them as a way out do not know which command was run."""


def known_as(key: str, known: Mapping[str, Setting]) -> str:
    """The key under which this command has a setting: some have --errors, some --data.errors, and both understand both.

    >>> from clearstory.recipes.settings.training import TrainRecipe
    >>> known_as("errors", table(TrainRecipe))
    'data.errors'
    """
    name = key.removeprefix("data.")
    if key in known or name not in READING:
        return key
    return name if name in known else f"data.{name}"


def flag_kind(key: str, known: Mapping[str, Setting]) -> Any:
    """bool for a flag that stands alone, tuple for one that may be given again and again, str for any other."""
    from typing import get_origin

    from clearstory.recipes.settings.schema import strip_optional

    if key in ("json", "print_config"):
        return bool
    if key == "config":
        return tuple
    row = known.get(key) or (known.get(key.removeprefix("no_")) if key.startswith("no_") else None)
    if row is None:
        return None
    hint = strip_optional(row.hint)
    if hint is bool:
        return bool
    if key not in known:
        return None
    return tuple if get_origin(hint) is tuple else str


def by_place(places: Sequence[str], known: Mapping[str, Setting]) -> dict[str, Any]:
    """Words that are no flags, to the fields that are given by place; a list takes all that are left."""
    said: dict[str, Any] = {}
    left = list(places)
    rows = [row for row in known.values() if row.positional]
    for row in rows:
        if left:
            if flag_kind(row.key, known) is tuple:
                said[row.key], left = left, []
            else:
                said[row.key] = left.pop(0)
    if left:
        takes = " ".join(row.positional or "" for row in rows) or "no words besides flags"
        raise UsageError(f"'{left[0]}' is one word too many; this command takes {takes}")
    return said


def flag(key: str) -> str:
    """A key as it is written on the command line: --max-tokens, --training.learning_rate."""
    return f"--{key}" if "." in key else f"--{key.replace('_', '-')}"


def jsonable(value: Any) -> Any:
    """A value that JSON can hold: paths as text, and null for numbers that are none."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
