"""Parallel text: pairs of a source and a target, as documents that alternate: a source, its target, the next source.

tsv           source, a tab, target; further columns are ignored
jsonl         one object per line, with a field for each
two files     line-aligned: the first has the sources, the second the targets
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.files import content_suffix, read_lines, read_records
from clearstory.text.settings import DataSettings

TextPair = tuple[str, str, str]
"""Location for messages, source, target."""


def read_pairs(paths: Sequence[Path], settings: DataSettings) -> Iterator[TextPair]:
    """All pairs of the files, in order. Lines that are blank on both sides are skipped.

    Raises BadInput, with the line number, for a line that is not a pair.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "greetings.tsv")
    >>> _ = file.write_text("Hello.\\tHallo.\\nBye!\\tTschüss!\\n", encoding="utf-8")
    >>> [(source, target) for _, source, target in read_pairs([file], DataSettings())]
    [('Hello.', 'Hallo.'), ('Bye!', 'Tschüss!')]
    """
    kinds = {content_suffix(path) for path in paths}
    if not kinds & {".tsv", ".jsonl"}:
        if len(paths) != 2:
            raise BadInput(
                f"{len(paths):,} text files are not pairs; give two line-aligned files, first the sources, then the "
                "targets, or .tsv or .jsonl files"
            )
        yield from _complete_pairs(_read_line_aligned(paths[0], paths[1], settings))
        return
    for path in paths:
        kind = content_suffix(path)
        if kind not in (".tsv", ".jsonl"):
            raise BadInput(f"{path} has no pairs, unlike the other files; give .tsv and .jsonl files only")
        yield from _complete_pairs(_read_tsv(path, settings) if kind == ".tsv" else _read_jsonl(path, settings))


def has_pairs(paths: Iterable[Path], settings: DataSettings) -> bool:
    """Whether files contain pairs: all are tsv, or jsonl whose first object has both fields."""
    found = [
        content_suffix(path) == ".tsv" or (content_suffix(path) == ".jsonl" and _has_both(path, settings))
        for path in paths
    ]
    return bool(found) and all(found)


def _has_both(path: Path, settings: DataSettings) -> bool:
    first = next((line for line in read_lines(path, settings.errors) if line.strip()), "")
    try:
        record = json.loads(first)
    except (json.JSONDecodeError, RecursionError):
        return False
    return isinstance(record, dict) and {settings.source_field, settings.target_field} <= record.keys()


def _complete_pairs(pairs: Iterable[TextPair]) -> Iterator[TextPair]:
    """Pairs with neither side blank."""
    for location, source, target in pairs:
        source, target = source.strip(), target.strip()
        if not source and not target:
            continue
        if not source or not target:
            raise BadInput(
                f"{location} has no {'target' if source else 'source'}; a pair needs both: complete or remove it"
            )
        yield location, source, target


def _read_tsv(path: Path, settings: DataSettings) -> Iterator[TextPair]:
    for number, line in enumerate(read_lines(path, settings.errors), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number:,}"
        source, tab, rest = line.partition("\t")
        if not tab:
            raise BadInput(f"{location} has no tab; each line of a .tsv is a source, a tab and a target")
        yield location, source, rest.partition("\t")[0]


def _read_jsonl(path: Path, settings: DataSettings) -> Iterator[TextPair]:
    for _, location, record in read_records(path, settings.errors):
        yield (
            location,
            _text(location, record, settings, "source_field"),
            _text(location, record, settings, "target_field"),
        )


def _text(location: str, record: dict[str, object], settings: DataSettings, setting: str) -> str:
    name = getattr(settings, setting)
    if name not in record:
        known = ", ".join(map(repr, record))
        raise BadInput(f"{location} has no field {name!r}, only {known}; choose one with --data.{setting} NAME")
    value = record[name]
    if not isinstance(value, str):
        raise BadInput(
            f"{location}: {name!r} is {type(value).__name__}, not text; choose another with --data.{setting}"
        )
    return value


def _read_line_aligned(first: Path, second: Path, settings: DataSettings) -> Iterator[TextPair]:
    pairs = zip_longest(read_lines(first, settings.errors), read_lines(second, settings.errors))
    for number, (source, target) in enumerate(pairs, start=1):
        if source is None or target is None:
            shorter, longer = (first, second) if source is None else (second, first)
            raise BadInput(
                f"{shorter} ends after {number - 1:,} lines, before {longer}; the files must be line-aligned"
            )
        yield f"line {number:,} of {first} and {second}", source, target
