"""YAML files of settings: written from settings dataclasses, and read back as keys and values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from clearstory.durable import read_file
from clearstory.errors import BadInput, ClearstoryError
from clearstory.recipes.settings.schema import to_plain

MAX_BYTES = 2**18

MAX_VALUES = 100_000
"""Values of a file, those of an alias (*name) counted wherever it stands."""


def to_yaml(settings: Any) -> str:
    """All settings as YAML, which `read_yaml` and `build_settings` read back.

    >>> from clearstory.generation.settings import Sampling
    >>> to_yaml(Sampling(top_k=40)).splitlines()[2]
    'top_k: 40'
    """
    return yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises BadInput for a missing file, invalid YAML or other contents."""
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"the settings file '{path}' is not UTF-8 at byte {error.start:,}; save it as UTF-8") from error
    except ClearstoryError as error:
        raise BadInput(f"the settings file '{path}' cannot be read ({error}); give the path of a YAML file") from error
    try:
        found = yaml.load(text, Loader=CoreSchemaLoader)
        count_values(found)
    except RecursionError as error:
        raise BadInput(
            f"the settings file '{path}' has brackets nested too deeply; settings have two levels"
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        # ValueError: 5,000 digits; AttributeError: PyYAML's, for a wrong !!timestamp
        raise BadInput(f"the settings file '{path}' is not YAML: {' '.join(str(error).split())[:300]}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInput(f"the settings file '{path}' has no keys and values; write lines such as 'steps: 100'")
    return found


def count_values(found: Any) -> None:
    """Raise ValueError for more values than MAX_VALUES: aliases within aliases, or one that contains itself."""
    stack, count = [found], 0
    while stack:
        value = stack.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if isinstance(value, dict | list | tuple | set):
            stack += [*value, *value.values()] if isinstance(value, dict) else value


class CoreSchemaLoader(yaml.SafeLoader):
    """The core schema of YAML 1.2, in which `on` is a string and 1e-3 a number, unlike in YAML 1.1 (PyYAML).

    A duplicate key is an error, where PyYAML keeps the last value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with unique keys."""
        seen: set[str] = set()
        for each, _ in node.value:
            key = repr(self.construct_object(each, deep=True))  # a key may be a list
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


CoreSchemaLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", ["t", "f"]),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
