"""Settings files: YAML written from settings, and read again to be equal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from clearstory.errors import BadInput
from clearstory.recipes.settings.schema import to_plain


def to_yaml(settings: Any) -> str:
    """Settings as YAML, every field of them, to be read again with `read_yaml` and `build`.

    >>> from clearstory.generation.settings import Sampling
    >>> to_yaml(Sampling(top_k=40)).splitlines()[2]
    'top_k: 40'
    """
    return yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values in a YAML file. Raises BadInput where it is no file, no YAML, or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the settings file '{path}' cannot be read ({error}); give the path of a YAML file") from error
    try:
        found = yaml.load(text, Loader=Plain)
    except yaml.YAMLError as error:
        raise BadInput(f"the settings file '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInput(f"the settings file '{path}' holds no keys and values; write lines such as 'steps: 100'")
    return found


class Plain(yaml.SafeLoader):
    """YAML as people mean it, the core schema of YAML 1.2: `on` is a word and 1e-3 a number, unlike in PyYAML's 1.1.
    A key that stands twice is an error, where PyYAML keeps the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


Plain.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", ["t", "f"]),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
