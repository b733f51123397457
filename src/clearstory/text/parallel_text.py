"""Parallel text: pairs of a source and a target, as documents that alternate: a source, its target, the next source.

tsv           source, a tab, target; further columns are ignored
jsonl         one object per line, with a field for each; a source that is a list of sentences is joined by spaces, and
              a target that is a list of references makes a pair of each
two files     line-aligned: the first has the sources, the second the targets
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.files import content_suffix, read_lines, read_records
from clearstory.text.label_files import describe_labels, is_number
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings
from clearstory.text.tables import read_tsv_rows

TextPair = tuple[str, str, str]
"""Location for messages, source, target."""

SAMPLE_PAIRS = 1000
"""Pairs that show whether a file has labels."""


def read_pairs(paths: Sequence[Path], settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[TextPair]:
    """All pairs of the files, in order. Lines that are blank on both sides are skipped.

    Raises BadInput, with the line number, for a line that is not a pair.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "greetings.tsv")
    >>> _ = file.write_text("Hello.\\tHallo.\\nBye!\\tTschüss!\\n", encoding="utf-8")
    >>> [(source, target) for _, source, target in read_pairs([file], ReadSettings())]
    [('Hello.', 'Hallo.'), ('Bye!', 'Tschüss!')]
    """
    kinds = {content_suffix(path) for path in paths}
    if not kinds & {".tsv", ".jsonl"}:
        if len(paths) != 2:
            raise BadInput(
                f"{len(paths):,} text files are not pairs; give two line-aligned files, first the sources, then the "
                "targets, or .tsv or .jsonl files"
            )
        yield from _complete_pairs(_read_line_aligned(paths[0], paths[1], settings, notes))
        return
    for path in paths:
        kind = content_suffix(path)
        if kind not in (".tsv", ".jsonl"):
            raise BadInput(f"{path} has no pairs, unlike the other files; give .tsv and .jsonl files only")
        read = _read_tsv if kind == ".tsv" else _read_jsonl
        yield from _complete_pairs(read(path, settings, notes))


def has_pairs(paths: Iterable[Path], settings: ReadSettings) -> bool:
    """Whether files contain pairs: all are tsv, or jsonl whose first object has both fields.

    Raises BadInput for files of text and labels, unless `settings.pairs` says that they are pairs.
    """
    paths = list(paths)
    found = [
        content_suffix(path) == ".tsv" or (content_suffix(path) == ".jsonl" and _has_both(path, settings))
        for path in paths
    ]
    if not found or not all(found):
        return False
    if not settings.pairs:
        for path in paths:
            check_not_labels(path, settings)
    return True


def check_not_labels(path: Path, settings: ReadSettings) -> None:
    """Raise BadInput where one side of the pairs of a file has only numbers, or few short values many times."""
    read = _read_tsv if content_suffix(path) == ".tsv" else _read_jsonl
    try:
        pairs = [pair[1:] for pair in islice(_complete_pairs(read(path, settings, None)), SAMPLE_PAIRS)]
    except BadInput:
        return  # reported, with its line, when the pairs are read
    for column, side in enumerate(("first", "second")):
        values = [pair[column].strip() for pair in pairs]
        header = values[0] if len(values) > 2 and not is_number(values[0]) else None
        values = values[1:] if header is not None else values
        kinds = describe_labels(values)
        if kinds is not None:
            where = f"the {side} column" if content_suffix(path) == ".tsv" else f"the {('source', 'target')[column]}"
            raise BadInput(
                f"{path} has labels, not pairs of texts: {where} has only {kinds}; fine-tune a model on it with "
                "clearstory finetune MODEL FILE --task classify, give lines of a source, a tab and a target, or train "
                "on it as pairs all the same with --data.pairs"
            )


def _has_both(path: Path, settings: ReadSettings) -> bool:
    lines = read_lines(path, settings.errors, settings.encoding)
    first = next((line for line in lines if line.strip()), "")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
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


def _read_tsv(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[TextPair]:
    for number, columns in read_tsv_rows(path, settings, notes):
        location = f"{path}, line {number:,}"
        if len(columns) < 2:
            raise BadInput(f"{location} has no tab; each line of a .tsv is a source, a tab and a target")
        yield location, columns[0], columns[1]


def _read_jsonl(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[TextPair]:
    records = pairs = 0
    for _, location, record in read_records(path, settings.errors, settings.encoding, notes):
        source = " ".join(text.strip() for text in _texts(location, record, settings, "source_field"))
        targets = _texts(location, record, settings, "target_field")
        records, pairs = records + 1, pairs + len(targets)
        yield from ((location, source, target) for target in targets)
    if pairs > records and notes is not None:
        notes.remarks.append(
            f"{path.name} has {pairs:,} references in '{settings.target_field}' for {records:,} sources; each is a pair"
        )


def _texts(location: str, record: dict[str, object], settings: ReadSettings, setting: str) -> list[str]:
    """The texts of a field: one, or those of a list."""
    name = getattr(settings, setting)
    if name not in record:
        known = ", ".join(map(repr, record))
        raise BadInput(f"{location} has no field {name!r}, only {known}; choose one with --data.{setting} NAME")
    value = record[name]
    texts: list[str] = []
    for text in value if isinstance(value, list) and value else [value]:
        if not isinstance(text, str):
            kind = type(value).__name__ if text is value else f"a list with {type(text).__name__} in it"
            raise BadInput(f"{location}: {name!r} is {kind}, not text; choose another with --data.{setting}")
        texts.append(text)
    return texts


def _read_line_aligned(
    first: Path, second: Path, settings: ReadSettings, notes: ReadNotes | None
) -> Iterator[TextPair]:
    sides = (read_lines(path, settings.errors, settings.encoding, notes) for path in (first, second))
    for number, (source, target) in enumerate(zip_longest(*sides), start=1):
        if source is None or target is None:
            shorter, longer = (first, second) if source is None else (second, first)
            raise BadInput(
                f"{shorter} ends after {number - 1:,} lines, before {longer}; the files must be line-aligned"
            )
        yield f"line {number:,} of {first} and {second}", source, target
