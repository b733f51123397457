"""Columns of parallel text: which field has the source and which the target, by settings or by their usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clearstory.errors import BadInput, nearest
from clearstory.text.settings import ReadSettings

USUAL_NAMES = (
    ("source", "target"), ("src", "tgt"), ("src", "trg"), ("article", "highlights"), ("document", "summary"),
    ("dialogue", "summary"), ("article", "summary"), ("article", "abstract"), ("text", "summary"),
    ("report", "summary"), ("content", "summary"), ("body", "summary"), ("input", "output"), ("input", "target"),
    ("document", "tldr"), ("text", "headline"), ("text", "translation"), ("original", "translation"),
    ("complex", "simple"),
)  # fmt: skip
"""Usual names of source and target columns, in order of priority."""

LANGUAGE = re.compile(r"(?!id$)[a-z]{2}([_-][A-Za-z]{2,4})?")
"""A column that is named by a language; id is a number."""


class PairColumns(NamedTuple):
    """Names of the columns of the source and of the target."""

    source: str
    target: str


def find_pair_columns(
    location: str, columns: Sequence[str], settings: ReadSettings, *, has_header: bool = True
) -> PairColumns:
    """The columns with the source and the target: those of the settings, else by their usual names, else two that are
    named by languages, in their order; of a table without a header, the first two.

    Raises BadInput if none is found; `location` is for the message.
    """
    usual = ReadSettings()
    given = [(settings.source_field, usual.source_field), (settings.target_field, usual.target_field)]
    wanted = [None if name == default else name for name, default in given]
    chosen = [None if name is None else find_column(columns, name) for name in wanted]
    for name, column, side in zip(wanted, chosen, ("source", "target"), strict=True):
        if name is not None and column is None:
            known = ", ".join(repr(each[:40]) for each in columns[:12])
            close = nearest(name, columns)
            suggestion = f"{close}; " if close.startswith("did you mean") else ""
            raise BadInput(
                f"{location} has no field {name!r}, only {known}; {suggestion}choose one with --data.{side}_field NAME "
                f"(finetune: {FLAGS[side]})"
            )
    found = chosen[0], chosen[1]
    if None in found:
        found = complete_pair(columns, found, has_header=has_header)
    if found[0] is None or found[1] is None or found[0] == found[1]:
        known = ", ".join(repr(each[:40]) for each in columns[:12])
        missing = "source" if found[0] is None else "target"
        raise BadInput(
            f"{location} has no field {missing!r}, only {known}; choose one with --data.{missing}_field NAME "
            f"(finetune: {FLAGS[missing]})"
        )
    return PairColumns(found[0], found[1])


FLAGS = {"source": "--text-column", "target": "--pair-column"}
"""Flags of finetune and evaluate that name the columns."""


def complete_pair(
    columns: Sequence[str], chosen: tuple[str | None, str | None], *, has_header: bool
) -> tuple[str | None, str | None]:
    """The column that goes with the one that is chosen, or both."""
    source, target = chosen
    if not has_header:
        left = [column for column in columns[:2] if column not in chosen]
        return source or (left.pop(0) if left else None), target or (left.pop(0) if left else None)
    for names in USUAL_NAMES:
        pair = [find_column(columns, name) for name in names]
        if None not in pair and source in (None, pair[0]) and target in (None, pair[1]):
            return pair[0], pair[1]
    languages = [column for column in columns if is_language(column)]
    if len(languages) == 2 and {*filter(None, chosen)} <= {*languages}:
        left = [column for column in languages if column not in chosen]
        return source or left.pop(0), target or left.pop(0)
    # Of a pair of which one is named, the other may have the default name.
    return source or find_column(columns, "source"), target or find_column(columns, "target")


def find_column(columns: Sequence[str], name: str) -> str | None:
    """The column of this name, in any case; None without one."""
    if name in columns:
        return name
    return next((column for column in columns if column.strip().casefold() == name.strip().casefold()), None)


def is_language(name: str) -> bool:
    """Whether a column is named by a language, such as en or pt_BR.

    >>> is_language("en"), is_language("pt_BR"), is_language("id"), is_language("No.")
    (True, True, False, False)
    """
    return LANGUAGE.fullmatch(name) is not None


def is_pair_header(names: Sequence[str], settings: ReadSettings) -> bool:
    """Whether the first row of a table has column names: those given by settings, or usual ones.

    >>> is_pair_header(["id", "src", "tgt"], ReadSettings()), is_pair_header(["Go on.", "Weiter."], ReadSettings())
    (True, False)
    """
    plain = {name.casefold() for name in names}
    wanted = settings.source_field.casefold(), settings.target_field.casefold()
    if not any(name.isdecimal() for name in wanted) and {*wanted} <= plain:
        return True
    return any({*pair} <= plain for pair in USUAL_NAMES) or (
        len(names) == len(plain) and sum(map(is_language, names)) == 2
    )


def with_languages(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an object, together with those of its `translation`: {"en": ..., "de": ...}."""
    languages = values.get("translation")
    if not isinstance(languages, Mapping):
        return dict(values)
    others = {name: value for name, value in values.items() if name != "translation"}
    return {**others, **languages}
