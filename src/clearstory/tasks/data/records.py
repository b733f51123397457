"""Records: the rows of tables and the objects of jsonl, each with its file, line and part of the data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from clearstory.errors import BadInput
from clearstory.tasks.data.columns import is_header
from clearstory.tasks.data.data_files import DataFile
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.arrow_tables import read_arrow_rows, read_schema
from clearstory.text.files import content_suffix, parse_json, read_lines, read_records, without_surrogates
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings
from clearstory.text.tables import Row, read_csv_rows, read_tsv_rows

SAMPLE_RECORDS = 1000
"""Records that show which columns there are."""

FASTTEXT = "__label__"


class LabelRecord(NamedTuple):
    """One row or object: where it is, its part of the data set, and its values by column."""

    location: str
    part: str
    values: dict[str, Any]


@dataclass
class RecordTable:
    """The records of all files, the names of their columns, and the names of classes that the files declare.

    Args:
        columns: names of the columns; "1", "2", … without a header.
        has_header: whether the names are read from the files.
        class_names: names of the classes of a column that has ids, in the order of the ids.
        name: the first file, for messages.
    """

    columns: tuple[str, ...]
    records: list[LabelRecord]
    has_header: bool
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "the data"

    @property
    def listed_columns(self) -> str:
        """The names of the columns, for messages."""
        return list_names(self.columns)


def list_names(names: Iterable[str]) -> str:
    """Some names in quotation marks, each cut if it is long.

    >>> list_names(["text", "label"])
    "'text', 'label'"
    """
    names = list(names)
    return ", ".join(repr(name[:40]) for name in names[:12]) + (" …" if len(names) > 12 else "")


def read_table(files: Iterable[DataFile], settings: LabelSettings, notes: ReadNotes) -> RecordTable:
    """All records of the files as one table.

    Raises BadInput if only some of the files have a header, or if there are no records.
    """
    whole: RecordTable | None = None
    for file in files:
        table = _read_file(file, settings, notes)
        if whole is None:
            whole = table
        elif whole.has_header != table.has_header or (not table.has_header and whole.columns != table.columns):
            raise BadInput(
                f"{table.name} has the columns {table.listed_columns}, and {whole.name} has {whole.listed_columns}; "
                "give files with the same columns"
            )
        else:
            whole.columns = tuple(dict.fromkeys((*whole.columns, *table.columns)))
            whole.records += table.records
            whole.class_names = {**table.class_names, **whole.class_names}
    if whole is None or not whole.records:
        raise BadInput(f"{whole.name if whole else 'the data'} is empty; give a file with labeled examples")
    return whole


def read_text(record: LabelRecord, column: str) -> str:
    """The text in a column, stripped. Raises BadInput if it is missing, empty or of another type."""
    value = record.values.get(column)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if value is None or isinstance(value, str) or value != value:
        raise BadInput(f"{record.location}: the text in {column!r} is empty; remove the row or complete it")
    raise BadInput(
        f"{record.location}: {column!r} is {type(value).__name__}, not text; choose another with --text-column"
    )


def find_class_names(features: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the classes of each column, from the features that `datasets` writes.

    >>> tags = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["O", "B-PER"]}}
    >>> find_class_names({"text": {"_type": "Value"}, "ner_tags": tags})
    {'ner_tags': ('O', 'B-PER')}
    """
    found = {}
    for column, feature in features.items():
        while isinstance(feature, dict | list):
            if isinstance(feature, list):
                feature = feature[0] if feature else None
            elif isinstance(names := feature.get("names"), list):
                found[column] = tuple(map(str, names))
                break
            else:
                feature = feature.get("feature")
    return found


def _read_file(file: DataFile, settings: LabelSettings, notes: ReadNotes) -> RecordTable:
    path, suffix = file.path, content_suffix(file.path)
    reading = settings.reading
    if suffix in (".parquet", ".arrow"):
        columns, features = read_schema(path)
        rows = ((f"{path}, row {number:,}", values) for number, values in read_arrow_rows(path))
        table = _objects(path, rows, file.part, columns)
        table.class_names = find_class_names({**features, **file.features})
        return table
    if suffix == ".json":
        return _objects(path, _json_objects(path, reading, notes), file.part)
    if suffix in (".jsonl", ".ndjson"):
        return _objects(path, _jsonl_objects(path, reading, notes), file.part)
    if suffix == ".csv":
        return _rows(file, read_csv_rows(path, reading, notes), settings)
    if suffix == ".tsv":
        return _rows(file, read_tsv_rows(path, reading, notes), settings)
    return _read_by_contents(file, settings, notes)


def _read_by_contents(file: DataFile, settings: LabelSettings, notes: ReadNotes) -> RecordTable:
    """Records of a file with an unknown suffix: jsonl, fastText lines, or lines with tabs."""
    path, reading = file.path, settings.reading
    sample = [line for line in islice(read_lines(path, reading.errors, reading.encoding), 100) if line.strip()]
    if not sample:
        raise BadInput(f"{path} is empty; give a file with labeled examples")
    if sample[0].lstrip().startswith("{"):
        return _objects(path, _jsonl_objects(path, reading, notes), file.part)
    if all(line.startswith(FASTTEXT) for line in sample):
        return _objects(path, _fasttext_objects(path, reading, notes), file.part)
    if all("\t" in line for line in sample):
        return _rows(file, read_tsv_rows(path, reading, notes), settings)
    if len(sample) > 1 and all("," in line for line in sample) and is_header(sample[0].split(",")):
        return _rows(file, read_csv_rows(path, reading, notes), settings)
    raise BadInput(
        f"{path} is plain text without labels; give csv, tsv, jsonl or parquet with a text and a label, or two texts "
        "and their similarity, in each row (finetune --task lm continues training on plain text)"
    )


def _rows(file: DataFile, rows: Iterator[Row], settings: LabelSettings) -> RecordTable:
    """Rows of fields. Raises BadInput, with its line, for a row of another length than the first."""
    path = file.path
    first = next(rows, None)
    if first is None:
        return RecordTable((), [], has_header=False, name=str(path))
    names = tuple(name.strip() for name in first[1])
    chosen = {settings.text_column, settings.pair_column, settings.negative_column, settings.split_column}
    chosen = {*chosen, *(settings.label_column or "").split(",")} - {None, ""}
    records: list[LabelRecord] = []
    listed = list(rows)
    has_header = bool(chosen & set(names)) or is_header(names, [fields for _, fields in listed[:SAMPLE_RECORDS]])
    if not has_header:
        names = tuple(str(number + 1) for number in range(len(names)))
        listed.insert(0, first)
    elif len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{path} has two columns {twice!r}; rename one of them")
    for number, fields in listed:
        if len(fields) != len(names):
            raise BadInput(
                f"{path}, line {number:,} has {len(fields)} column{'s' * (len(fields) != 1)}, and line {first[0]:,} "
                f"has {len(names)}; complete the row, or quote fields that contain the separator"
            )
        records.append(LabelRecord(f"{path}, line {number:,}", file.part, dict(zip(names, fields, strict=True))))
    return RecordTable(names, records, has_header, name=str(path))


def _objects(
    path: Path, objects: Iterator[tuple[str, dict[str, Any]]], part: str, columns: Iterable[str] = ()
) -> RecordTable:
    records = [LabelRecord(location, part, values) for location, values in objects]
    found = dict.fromkeys(columns)
    for record in records[:SAMPLE_RECORDS]:
        found.update(dict.fromkeys(record.values))
    return RecordTable(tuple(found), records, has_header=True, name=str(path))


def _jsonl_objects(path: Path, reading: ReadSettings, notes: ReadNotes) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, location, values in read_records(path, reading.errors, reading.encoding, notes):
        yield location, _without_surrogates(values, location, reading)


def _without_surrogates(value: Any, location: str, reading: ReadSettings) -> Any:
    """A JSON value whose texts can be written as UTF-8. Raises BadInput."""
    if isinstance(value, str):
        return without_surrogates(location, value, reading.errors)
    if isinstance(value, list):
        return [_without_surrogates(each, location, reading) for each in value]
    if isinstance(value, dict):
        return {
            without_surrogates(location, name, reading.errors): _without_surrogates(each, location, reading)
            for name, each in value.items()
        }
    return value


def _json_objects(path: Path, reading: ReadSettings, notes: ReadNotes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a list, of a list named "data" or similar, or of lines."""
    text = "\n".join(read_lines(path, reading.errors, reading.encoding, notes))
    lines = [line for line in islice(text.split("\n"), 3) if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        yield from _jsonl_objects(path, reading, notes)
        return
    contents = parse_json(text, str(path), "give a list of objects, or one object per line in a .jsonl file")
    if isinstance(contents, dict) and (columns := _columns_of_lists(contents)):
        contents = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    elif isinstance(contents, dict):
        lists = [value for value in contents.values() if isinstance(value, list)]
        contents = lists[0] if len(lists) == 1 else [contents]
    if not isinstance(contents, list):
        raise BadInput(f"{path} has no list of objects; give one, or one object per line in a .jsonl file")
    for number, values in enumerate(contents, start=1):
        if not isinstance(values, dict):
            raise BadInput(f"{path}, object {number:,} is not a JSON object; each must have a text and a label")
        location = f"{path}, object {number:,}"
        yield location, _without_surrogates(values, location, reading)


def _columns_of_lists(contents: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of an object that has a list for each, all of one length; {} for another."""
    lists = {name: value for name, value in contents.items() if isinstance(value, list)}
    of_objects = any(isinstance(each, dict) for value in lists.values() for each in value)
    same = len(lists) > 1 and len(lists) == len(contents) and len({len(value) for value in lists.values()}) == 1
    return lists if same and not of_objects else {}


def _fasttext_objects(path: Path, reading: ReadSettings, notes: ReadNotes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of labels that begin with __label__, and a text: the format of fastText."""
    for number, line in enumerate(read_lines(path, reading.errors, reading.encoding, notes), start=1):
        words = line.split()
        if not words:
            continue
        count = next((index for index, word in enumerate(words) if not word.startswith(FASTTEXT)), len(words))
        labels = [word.removeprefix(FASTTEXT) for word in words[:count]]
        values = {"text": " ".join(words[count:]), "label": labels[0] if len(labels) == 1 else labels}
        yield f"{path}, line {number:,}", values
