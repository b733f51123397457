"""The four sets of an association test: two of targets and two of attributes.

 text                                    JSON
 : target flowers                        {"targets": {"flowers": ["aster", "tulip"], "insects": [...]},
 aster, tulip                             "attributes": {"pleasant": [...], "unpleasant": [...]}}
 : target insects
 ant, flea                               or the files of May et al. 2019:
 : attribute pleasant                    {"targ1": {"category": "flowers", "examples": ["aster", "tulip"]},
 joy, love                                "targ2": ..., "attr1": ..., "attr2": ...}
 : attribute unpleasant
 filth, grief

In text files, words or sentences are separated by commas or line feeds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput
from clearstory.text.files import content_suffix, read_lines

ROLES = ("target", "attribute")

WAY_OUT = "give two sets of targets and two of attributes, in lines such as ': target flowers' and 'aster, tulip'"


@dataclass(frozen=True)
class WordSet:
    """Words, or sentences, under one name."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class AssociationSets:
    """Two sets of targets of the same size, and two sets of attributes."""

    targets: tuple[WordSet, WordSet]
    attributes: tuple[WordSet, WordSet]

    @property
    def all(self) -> tuple[WordSet, ...]:
        """The four sets."""
        return (*self.targets, *self.attributes)


def read_association_sets(path: str | Path) -> AssociationSets:
    """The sets of a file. Raises BadInput for other than two sets of each role, an empty set, a word that is twice in
    one, and targets of different sizes.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "sets.txt")
    >>> _ = file.write_text(": target a\\nx, y\\n: target b\\nz\\nw\\n: attribute c\\nu\\n: attribute d\\nv\\n")
    >>> [each.words for each in read_association_sets(file).all]
    [('x', 'y'), ('z', 'w'), ('u',), ('v',)]
    """
    path = expand_home(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}; give a file with two sets of targets and two of attributes")
    found = _read_json(path) if content_suffix(path) == ".json" else _read_text(path)
    for role in ROLES:
        count = sum(each == role for each, _ in found)
        if count != 2:
            raise BadInput(f"{path} has {count} set{'s' * (count != 1)} of {role}s; {WAY_OUT}")
    for role, each in found:
        if not each.words:
            raise BadInput(f"{path}: the {role} set {each.name[:60]!r} is empty; give it words")
        twice = next((a for a, b in pairwise(sorted(each.words)) if a == b), None)
        if twice is not None:
            raise BadInput(f"{path}: {twice[:60]!r} appears twice in the {role} set {each.name[:60]!r}; give it once")
    first, second, third, fourth = (each for role in ROLES for kind, each in found if kind == role)
    if len(first.words) != len(second.words):
        raise BadInput(
            f"{path}: the target sets have different sizes, {first.name[:60]!r} {len(first.words):,} and "
            f"{second.name[:60]!r} {len(second.words):,}; give both the same number of words"
        )
    return AssociationSets((first, second), (third, fourth))


def _read_text(path: Path) -> list[tuple[str, WordSet]]:
    """Roles and sets of lines under `: ROLE NAME`."""
    found: list[tuple[str, str, list[str]]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(":"):
            role, _, name = line[1:].strip().partition(" ")
            if role.rstrip("s").lower() not in ROLES or not name:
                raise BadInput(
                    f"{path}, line {number:,} is {line.strip()[:60]!r}, which does not start a set; {WAY_OUT}"
                )
            found.append((role.rstrip("s").lower(), name.strip(), []))
        elif line.strip():
            if not found:
                raise BadInput(f"{path}, line {number:,} is in no set; {WAY_OUT}")
            found[-1][2].extend(word for part in line.split(",") if (word := part.strip()))
    return [(role, WordSet(name, tuple(words))) for role, name, words in found]


def _read_json(path: Path) -> list[tuple[str, WordSet]]:
    """Roles and sets of a JSON object of either layout."""
    try:
        contents = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}; {WAY_OUT}") from None
    found = []
    for key, value in contents.items() if isinstance(contents, dict) else ():
        role = {"targ": "target", "attr": "attribute"}.get(key[:4], "")
        if key in ("targets", "attributes") and isinstance(value, dict):
            found += [(role, _word_set(path, name, words)) for name, words in value.items()]
        elif key in ("targ1", "targ2", "attr1", "attr2") and isinstance(value, dict):
            found.append((role, _word_set(path, str(value.get("category", key)), value.get("examples"))))
    return found


def _word_set(path: Path, name: str, words: Any) -> WordSet:
    """A set of a JSON file. Raises BadInput for other than a list of words."""
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise BadInput(f"{path}: the set {name[:60]!r} is not a list of words; {WAY_OUT}")
    return WordSet(name, tuple(word.strip() for word in words))
