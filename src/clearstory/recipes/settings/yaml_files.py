"""YAML files of settings: written from settings dataclasses, and read back as keys and values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from clearstory.errors import BadInput
from clearstory.recipes.settings.schema import to_plain


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the settings file '{path}' cannot be read ({error}); give the path of a YAML file") from error
    try:
        found = yaml.load(text, Loader=CoreSchemaLoader)
    except yaml.YAMLError as error:
        raise BadInput(f"the settings file '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInput(f"the settings file '{path}' has no keys and values; write lines such as 'steps: 100'")
    return found


class CoreSchemaLoader(yaml.SafeLoader):
    """The core schema of YAML 1.2, in which `on` is a string and 1e-3 a number, unlike in YAML 1.1 (PyYAML).

    A duplicate key is an error, where PyYAML keeps the last value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with unique keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


CoreSchemaLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", ["t", "f"]),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
