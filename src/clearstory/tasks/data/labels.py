"""Labels: names or ids, one or several, or numbers; resolved to names in the order of their ids."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, nearest
from clearstory.tasks.data.settings import Problem
from clearstory.text.files import read_lines

Labels = tuple[str, ...]

MANY_INTEGERS = 100
"""Distinct whole numbers above which they are values, not classes."""

WHOLE_NUMBER = re.compile(r"-?\d+\.0")
"""A whole number as tables write it whose column has a missing value."""

Located = tuple[str, Any]
"""Location, and the value of a label column there."""


def is_missing(value: Any) -> bool:
    """Whether a row has no label: nothing, white space or NaN."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def check_types(values: Sequence[Located], column: str) -> None:
    """Raise BadInput if some labels are lists, texts or numbers and others are not."""
    kinds: dict[str, str] = {}
    for location, value in values:
        if is_missing(value):
            continue
        kind = "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a number"
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(each, list | dict) for each in value)
        ):
            raise BadInput(
                f"{location}: {column!r} is not a label ({json.dumps(value)[:40]}); give a name, an id or a list"
            )
        kinds.setdefault(kind, location)
        if len(kinds) > 1:
            (first, where), (other, here) = kinds.items()
            raise BadInput(f"{here}: {column!r} is {other}, and {first} in {where}; write all labels in the same form")


def check_numbers(values: Sequence[Located], column: str) -> None:
    """Raise BadInput if some values are numbers with a fraction and others are not numbers."""
    fraction = next((each for each in values if (as_number(each[1]) or 0.0) % 1), None)
    word = next((each for each in values if not is_missing(each[1]) and as_number(each[1]) is None), None)
    if fraction is not None and word is not None:
        raise BadInput(
            f"{word[0]}: {str(word[1])[:40]!r} in {column!r} is not a number, but {fraction[1]} in {fraction[0]} is "
            "one; "
            "correct it, or use --problem single if both are names of labels"
        )


def label_text(value: Any) -> str:
    """A label as its name: whole numbers without a point, truth values in small letters.

    >>> label_text(1.0), label_text("1.0"), label_text(True), label_text(" joy ")
    ('1', '1', 'true', 'joy')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    name = " ".join(str(value).split())
    return name.partition(".")[0] if WHOLE_NUMBER.fullmatch(name) else name


def split_labels(value: Any) -> Labels:
    """The labels of one example: the items of a list, or those between commas.

    >>> split_labels("4,27"), split_labels(["joy"]), split_labels("['a', 'b']"), split_labels(None)
    (('4', '27'), ('joy',), ('a', 'b'), ())
    """
    if is_missing(value):
        return ()
    if isinstance(value, str):
        inner = value.strip()
        if inner.startswith("[") and inner.endswith("]"):
            inner = inner[1:-1]
        value = [part.strip().strip("'\"") for part in inner.split(",")]
    names = [label_text(each) for each in (value if isinstance(value, list) else [value])]
    return tuple(dict.fromkeys(name for name in names if name))


def choose_problem(values: Sequence[Any], problem: Problem, names: Sequence[str]) -> Problem:
    """Whether examples have one label, several, or a number, judged by all values.

    >>> choose_problem(["4", "4,27"], "auto", ()), choose_problem([3.8, 2.0], "auto", ())
    ('multi', 'regression')
    """
    present = [value for value in values if not is_missing(value)]
    if problem != "auto" or not present:
        return "single" if problem == "auto" else problem
    if isinstance(present[0], list):
        return "single" if all(len(value) == 1 for value in present) and len(present) == len(values) else "multi"
    texts = [label_text(value) for value in present]
    numbers = [number for number in map(as_number, texts) if number is not None]
    if len(numbers) == len(texts) and not names:
        fractions = any(not number.is_integer() for number in numbers)
        return "regression" if fractions or len(set(numbers)) > MANY_INTEGERS else "single"
    if any("," in text for text in texts):
        combinations = {split_labels(text) for text in texts}
        parts = Counter(part for labels in combinations for part in labels)
        ids = all(part.lstrip("-").isdecimal() for part in parts)
        shared = len(parts) <= len(combinations) and any(count > 1 for count in parts.values())
        if set(parts) <= set(names) or ids or (shared and max(map(len, parts)) <= 40):
            return "multi"
    return "single"


def as_number(text: Any) -> float | None:
    """The finite number that a value is or spells; None for another value."""
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_label_names(labels: str | None) -> Labels:
    """The names that --labels gives: joined by commas, or a file with one on each line. Raises BadSetting."""
    if not labels:
        return ()
    if "," not in labels or Path(labels).is_file():
        path = expand_home(labels)
        if not path.is_file():
            raise BadSetting(
                f"--labels is {labels!r}, neither a file nor names separated by commas, such as negative,positive"
            )
        names = names_of_file(path)
    else:
        names = tuple(name.strip() for name in labels.split(","))
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        reason = (
            f"{twice!r} twice"
            if twice
            else f"{len(names)} name{'s' * (len(names) != 1)}"
            if len(names) < 2
            else "an empty name"
        )
        raise BadSetting(f"--labels {labels} has {reason}; give the name of each label once, in the order of their ids")
    return names


def names_of_file(path: Path) -> Labels:
    """The names in a file, one on each line."""
    return tuple(line.strip() for line in read_lines(path) if line.strip())


def names_beside(files: Iterable[Path]) -> tuple[Path, Labels] | None:
    """The names in labels.txt in the folder of the files, if there is one."""
    for folder in dict.fromkeys(file.parent for file in files):
        for name in ("labels.txt", "classes.txt"):
            if (folder / name).is_file():
                return folder / name, names_of_file(folder / name)
    return None


def are_ids(labels: Iterable[str], names: Sequence[str]) -> bool:
    """Whether labels are indices into names that are not numbers themselves."""
    if not names or all(as_number(name) is not None for name in names):
        return False
    return all(is_index(label) and int(label) < len(names) for label in labels)


def is_index(text: str) -> bool:
    """Whether a text is a whole number that can count something."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def resolve_names(found: Sequence[tuple[str, Labels]], names: Sequence[str], declared: str) -> list[Labels]:
    """The labels of each example as names; ids are replaced by their names.

    `found` has the location and the labels of each example, `declared` is the source of the names. Raises BadInput
    for a label that is neither a name nor an id.
    """
    distinct = {label for _, labels in found for label in labels}
    if distinct <= set(names):
        return [labels for _, labels in found]
    if are_ids(distinct, names):
        return [tuple(names[int(label)] for label in labels) for _, labels in found]
    by_name = bool(distinct & set(names))
    location, wrong = next(
        (location, label)
        for location, labels in found
        for label in labels
        if not (label in names if by_name else are_ids([label], names))
    )
    known = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    close = nearest(wrong, names)
    suggestion = f"{close} " if close.startswith("did you mean") else ""
    raise BadInput(
        f"{location}: the label {wrong[:40]!r} is not one of the {len(names)} labels of {declared} ({known}); "
        f"{suggestion}correct it, or remove the row"
    )


def order_names(labels: Iterable[str]) -> Labels:
    """Distinct labels in the order of their ids: numbers by value, others by the alphabet.

    >>> order_names(["10", "2", "-1"]), order_names(["pos", "neg", "pos"])
    (('-1', '2', '10'), ('neg', 'pos'))
    """
    distinct = set(labels)
    numbers = {label: as_number(label) for label in distinct}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(distinct, key=lambda label: (numbers[label] or 0.0, label)))
    return tuple(sorted(distinct))
