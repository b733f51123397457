"""Command: runs a recipe with the settings of a command line; its result is printed as text or as one JSON object."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearstory.cli.arguments import UsageError, parse_arguments
from clearstory.cli.standard_input import replace_standard_input
from clearstory.errors import ClearstoryError
from clearstory.recipes.settings.schema import build_settings, setting_table
from clearstory.recipes.settings.training import merge_layers
from clearstory.recipes.settings.yaml_files import read_yaml, to_yaml

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of the command line.

    Args:
        recipe: dataclass of its settings.
        run: runs the command and returns the JSON object; None if it has printed the object itself.
        example: a command line that works.
        further_examples: more of them.
        common: keys of the settings in sections that the short help page shows.
        build: makes the recipe from the given values; `build_settings` by default.
        needs_torch: whether it computes with torch; a function of the settings where that depends on them.
    """

    recipe: type[Any]
    run: Callable[[Any, Output], Mapping[str, Any] | None]
    example: str
    further_examples: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    build: Callable[[Mapping[str, Any]], Any] | None = None
    needs_torch: bool | Callable[[Any], bool] = True


@dataclass(frozen=True)
class Output:
    """The streams that a command writes to. With --json, standard output carries the JSON object alone."""

    json: bool = False

    @property
    def console(self) -> Console:
        """Console for the result: standard output, or standard error with --json."""
        return make_console(stderr=self.json)

    @property
    def stderr(self) -> Console:
        """Console for progress and notes."""
        return make_console(stderr=True)

    def write(self, text: str) -> None:
        """Write a part of the result unformatted and flush, for text that is generated token by token."""
        stream = sys.stderr if self.json else sys.stdout
        stream.write(text)
        stream.flush()

    def print_json(self, result: Mapping[str, Any]) -> None:
        """Print the JSON object. Called directly only by a command that keeps running afterwards."""
        is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
        print(json.dumps(to_jsonable(result), ensure_ascii=not is_unicode, allow_nan=False), flush=True)


def make_console(stderr: bool) -> Console:
    """A rich console that honours NO_COLOR and does not style numbers or brackets in text."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True, color_system=None if plain else "auto")


def prepare_command(command: Command, words: Sequence[str]) -> Callable[[], None]:
    """A function that runs the command with the settings in `words`. Nothing is run here.

    Raises UsageError or ClearstoryError for flags, files and values that are invalid.
    """
    values = parse_arguments(words, setting_table(command.recipe))
    output = Output(json=values.pop("json", False))
    print_config = values.pop("print_config", False)
    layers = [read_config(command.recipe, Path(file)) for file in values.pop("config", [])]
    build = command.build or (lambda given: build_settings(command.recipe, given))
    recipe = build(merge_layers(command.recipe, *layers, values))
    if print_config:
        return lambda: print(to_yaml(recipe), end="")

    def run() -> None:
        given = replace_standard_input(recipe)
        needs_torch = command.needs_torch if isinstance(command.needs_torch, bool) else command.needs_torch(given)
        if needs_torch and "torch" not in sys.modules:
            import_torch()
        result = command.run(given, output)
        if output.json and result is not None:
            output.print_json(result)

    return run


def import_torch() -> None:
    """Import torch without looking for garbage among its half a million objects, then or later: none is."""
    gc.disable()
    import torch  # noqa: F401  # a command finds it imported

    gc.enable()
    gc.freeze()


def read_config(recipe: type[Any], file: Path) -> dict[str, Any]:
    """The settings of a YAML file by dotted key, checked by building the recipe. Raises UsageError if invalid."""
    content = read_yaml(file)
    try:
        values = merge_layers(recipe, content)
        build_settings(recipe, {**required_placeholders(recipe), **values})
    except ClearstoryError as error:
        raise UsageError(f"{file}: {error}") from error
    return values


def required_placeholders(recipe: type[Any]) -> dict[str, Any]:
    """Values for the required settings, so that a file can be checked without the command line."""
    return {key: key for key, setting in setting_table(recipe).items() if setting.default is MISSING}


def to_jsonable(value: Any) -> Any:
    """A value as JSON can hold it: paths as strings, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
