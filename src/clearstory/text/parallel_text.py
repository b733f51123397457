"""Parallel text: sources with their targets, as records, or as documents that alternate: a source, its target, the next
source.

tsv, csv      a column for each, by name in a header, else the first two
jsonl, json   an object for each, with a field for each side; also parquet and arrow
              a source that is a list of sentences is joined by spaces, a target that is a list of references is several
tmx, xliff    translation memories
two files     line-aligned: the first has the sources, the second the targets
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from clearstory.errors import BadInput
from clearstory.text.aligned_files import read_line_aligned
from clearstory.text.arrow_tables import read_arrow_rows
from clearstory.text.files import content_suffix, parse_json, read_lines, read_records
from clearstory.text.label_files import describe_labels, is_label_header, is_number, label_column
from clearstory.text.parallel_columns import PairColumns, find_pair_columns, is_pair_header, with_languages
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings
from clearstory.text.tables import Row, read_csv_rows, read_tsv_rows
from clearstory.text.translation_memory import read_tmx, read_xliff

TextPair = tuple[str, str, str]
"""Location for messages, source, target."""

SAMPLE_PAIRS = 1000
"""Number of pairs that are examined for labels."""


class ParallelRecord(NamedTuple):
    """A source with its targets, its location, and its first sentence if the file has sentences."""

    location: str
    source: str
    targets: tuple[str, ...]
    lead: str = ""


def read_pairs(paths: Sequence[Path], settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[TextPair]:
    """All pairs of the files, in order; a source with several targets makes a pair with each.

    Raises BadInput, with the line number, for a line that is not a pair.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "greetings.tsv")
    >>> _ = file.write_text("Hello.\\tHallo.\\nBye!\\tTschüss!\\n", encoding="utf-8")
    >>> [(source, target) for _, source, target in read_pairs([file], ReadSettings())]
    [('Hello.', 'Hallo.'), ('Bye!', 'Tschüss!')]
    """
    records = pairs = 0
    for record in read_parallel(paths, settings, notes):
        records, pairs = records + 1, pairs + len(record.targets)
        yield from ((record.location, record.source, target) for target in record.targets)
    if pairs > records and notes is not None:
        notes.remarks.append(
            f"{paths[0].name} has {pairs:,} references for {records:,} sources; each reference makes a pair"
        )


def read_parallel(
    paths: Sequence[Path], settings: ReadSettings, notes: ReadNotes | None = None
) -> Iterator[ParallelRecord]:
    """All sources of the files with their targets, in order. Records that are blank on both sides are skipped.

    Raises BadInput, with the line number, for a record without a source or a target, and for files that end at
    different lines.
    """
    kinds = [content_suffix(path) for path in paths]
    if not any(kind in READERS for kind in kinds):
        if len(paths) != 2:
            raise BadInput(
                f"{len(paths):,} text files are not pairs; give two line-aligned files, sources first, then targets, "
                f"or files with both: {' '.join(READERS)}"
            )
        aligned = read_line_aligned(paths[0], paths[1], settings, notes)
        yield from complete_records(ParallelRecord(location, source, (target,)) for location, source, target in aligned)
        return
    for path, kind in zip(paths, kinds, strict=True):
        if kind not in READERS:
            raise BadInput(f"{path} has no pairs, unlike the other files; give {' '.join(READERS)} files only")
        yield from complete_records(READERS[kind](path, settings, notes))


def has_pairs(paths: Iterable[Path], settings: ReadSettings) -> bool:
    """Whether files contain pairs: all are tsv, tmx or xliff, or jsonl whose first object has both fields.

    Raises BadInput for files of texts and labels, unless `settings.pairs` is set.
    """
    paths = list(paths)
    found = [
        content_suffix(path) in (".tsv", *MEMORIES) or (content_suffix(path) == ".jsonl" and _has_both(path, settings))
        for path in paths
    ]
    if not found or not all(found):
        return False
    if not settings.pairs:
        for path in paths:
            check_not_labels([path], settings)
    return True


def check_not_labels(paths: Sequence[Path], settings: ReadSettings) -> None:
    """Raise BadInput if one side of the pairs of files has a header for labels, only numbers, or few short values many
    times.
    """
    try:
        records = list(islice(read_parallel(paths, settings), SAMPLE_PAIRS))
    except BadInput:
        return  # reported, with its line, when the pairs are read
    sides = [each.source.strip() for each in records], [each.targets[0].strip() for each in records]
    headed = len(records) > 1 and is_label_header(side[0] for side in sides)
    for column, side in enumerate(("first", "second")):
        values = sides[column]
        header = values[0] if len(values) > 2 and not is_number(values[0]) else None
        values = values[1:] if header is not None else values
        kinds = describe_labels(values)
        kinds = kinds and f"only {kinds}"
        if kinds is None and headed and label_column([sides[column][0]]) is not None:
            kinds = f"labels, by its header {sides[column][0]!r}"
        if kinds is not None:
            in_tsv = content_suffix(paths[0]) == ".tsv"
            where = f"the {side} column" if in_tsv else f"the {('source', 'target')[column]}"
            raise BadInput(
                f"{paths[0]} has labels, not pairs of texts: {where} has {kinds}; fine-tune a model on it with "
                "clearstory finetune MODEL FILE --task classify, give lines of a source, a tab and a target, or "
                "train on it as pairs anyway with --data.pairs"
            )


def complete_records(records: Iterable[ParallelRecord]) -> Iterator[ParallelRecord]:
    """Records with neither side blank. Raises BadInput for one with one side blank."""
    for location, source, targets, lead in records:
        source, targets = source.strip(), tuple(target.strip() for target in targets)
        if not source and not any(targets):
            continue
        if not source or not all(targets):
            raise BadInput(
                f"{location} has no {'target' if source else 'source'}; a pair needs both: complete or remove it"
            )
        yield ParallelRecord(location, source, targets, lead.strip())


def _has_both(path: Path, settings: ReadSettings) -> bool:
    lines = read_lines(path, settings.errors, settings.encoding)
    first = next((line for line in lines if line.strip()), "")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict):
        return False
    return isinstance(record.get("translation"), dict) or {settings.source_field, settings.target_field} <= {*record}


def _read_tsv(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    return _from_rows(path, read_tsv_rows(path, settings, notes), settings)


def _read_csv(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    return _from_rows(path, read_csv_rows(path, settings, notes), settings)


def _from_rows(path: Path, rows: Iterator[Row], settings: ReadSettings) -> Iterator[ParallelRecord]:
    """Records of the rows of a table; further columns are ignored."""
    first = next(rows, None)
    if first is None:
        return
    header = [field.strip() for field in first[1]]
    named = is_pair_header(header, settings)
    names = header if named else [str(number) for number in range(1, len(header) + 1)]
    if not named and len(header) < 2:
        raise BadInput(f"{path}, line {first[0]:,} has no tab; each line of a .tsv is a source, a tab and a target")
    columns = find_pair_columns(str(path), names, settings, has_header=named)
    source, target = names.index(columns.source), names.index(columns.target)
    for number, fields in rows if named else chain([first], rows):
        location = f"{path}, line {number:,}"
        if len(fields) <= max(source, target):
            what = "no tab" if len(fields) < 2 else f"{len(fields)} columns"
            raise BadInput(
                f"{location} has {what}; each line of a .tsv is a source, a tab and a target"
                if not named
                else f"{location} has {what}, and the header has {len(names)}; complete the row"
            )
        yield ParallelRecord(location, fields[source], (fields[target],))


def _read_jsonl(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    objects = read_records(path, settings.errors, settings.encoding, notes)
    return _from_objects(((location, record) for _, location, record in objects), settings)


def _read_json(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    """Objects of a list, or of the only list of an object."""
    remedy = "give a list of objects, or one object per line in a .jsonl file"
    contents = parse_json("\n".join(read_lines(path, settings.errors, settings.encoding, notes)), str(path), remedy)
    if isinstance(contents, dict):
        lists = [value for value in contents.values() if isinstance(value, list)]
        contents = lists[0] if len(lists) == 1 else contents
    if not isinstance(contents, list) or not all(isinstance(each, dict) for each in contents):
        raise BadInput(f"{path} has no list of objects; {remedy}")
    objects = ((f"{path}, object {number:,}", each) for number, each in enumerate(contents, start=1))
    return _from_objects(objects, settings)


def _read_arrow(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    return _from_objects(((f"{path}, row {number:,}", row) for number, row in read_arrow_rows(path)), settings)


def _from_objects(objects: Iterable[tuple[str, dict[str, Any]]], settings: ReadSettings) -> Iterator[ParallelRecord]:
    """Records of objects; those of a `translation` are the languages in it, as `datasets` has them."""
    columns: PairColumns | None = None
    for location, values in objects:
        values = with_languages(values)
        if columns is None or not {columns.source, columns.target} <= values.keys():
            columns = find_pair_columns(location, list(values), settings)
        sentences = _texts(location, values, columns.source, "source_field")
        lead = sentences[0] if len(sentences) > 1 else ""
        source = " ".join(text.strip() for text in sentences)
        yield ParallelRecord(location, source, tuple(_texts(location, values, columns.target, "target_field")), lead)


def _texts(location: str, values: dict[str, Any], name: str, setting: str) -> list[str]:
    """The texts of a field: one, or those of a list."""
    value = values[name]
    texts: list[str] = []
    for text in value if isinstance(value, list) and value else [value]:
        if not isinstance(text, str):
            kind = type(value).__name__ if text is value else f"a list with {type(text).__name__} in it"
            raise BadInput(f"{location}: {name!r} is {kind}, not text; choose another with --data.{setting}")
        texts.append(text)
    return texts


def _read_memory(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[ParallelRecord]:
    """The units of a translation memory that have both sides."""
    read = read_tmx if content_suffix(path) == ".tmx" else read_xliff
    left_out = 0
    for location, source, target in read(path, settings):
        if source.strip() and target.strip():
            yield ParallelRecord(location, source, (target,))
        else:
            left_out += 1
    if left_out and notes is not None:
        units = "unit lacks" if left_out == 1 else "units lack"
        notes.remarks.append(f"{left_out:,} {units} a source or a target in {path.name}, not read")


MEMORIES = (".tmx", ".xlf", ".xliff")

READERS: dict[str, Callable[[Path, ReadSettings, ReadNotes | None], Iterator[ParallelRecord]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_arrow,
    ".arrow": _read_arrow,
    **dict.fromkeys(MEMORIES, _read_memory),
}
"""The reader of each suffix."""
