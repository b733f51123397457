"""Tables: the text column of csv and tsv files.

csv is read with Python's csv module: quoted fields can contain commas and line feeds. A tsv file has no quotes unless
its fields show that they are quoted, since a sentence can begin with a quotation mark.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.document import Document
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.label_files import label_column, note_labels
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings

FIELD_LIMIT = 1 << 24
"""Characters of a field; a quotation mark that is never closed would make the rest of the file one field."""

SAMPLE_LINES = 2000

SAMPLE_ROWS = 20
"""Lines that show which character separates the columns of a csv file."""

Row = tuple[int, list[str]]
"""Number of the line on which a row ends, and its fields."""


def read_csv(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Document]:
    """The text column of a csv file, a document for each row; columns are separated by commas, semicolons or tabs."""
    yield from _documents(path, read_csv_rows(path, settings, notes), settings, notes)


def read_csv_rows(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Row]:
    """Rows of a csv file, without blank lines."""
    lines = _lines(path, settings, notes)
    sample = list(islice(lines, SAMPLE_ROWS))
    delimiter = find_delimiter(sample, settings.text_field)
    yield from _csv_rows(path, chain(sample, lines), delimiter)


def find_delimiter(lines: Sequence[str], text_field: str) -> str:
    """The character between the columns of csv: the one that gives a header with the text column, else the one that
    gives rows of one length, above 1; a comma where several do, or none.

    >>> find_delimiter(["id;text", "1;Hello, world"], "text"), find_delimiter(["1;Hello, world", "2;Bye"], "2")
    (';', ';')
    """
    delimiters = (",", ";", "\t")
    csv.field_size_limit(FIELD_LIMIT)
    try:
        tables = [[row for row in csv.reader(lines, delimiter=each) if row] for each in delimiters]
    except csv.Error:
        return ","  # the error is reported with its line when the rows are read
    for delimiter, rows in zip(delimiters, tables, strict=True):
        if rows and len(rows[0]) > 1 and text_field in [field.strip() for field in rows[0]]:
            return delimiter
    for delimiter, rows in zip(delimiters, tables, strict=True):
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return delimiter
    return ","


def read_tsv(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Document]:
    """The text column of a tsv file, a document for each row."""
    yield from _documents(path, read_tsv_rows(path, settings, notes), settings, notes)


def read_tsv_rows(path: Path, settings: ReadSettings, notes: ReadNotes | None = None) -> Iterator[Row]:
    """Rows of a tsv file, without blank lines."""
    lines = _lines(path, settings, notes)
    sample = list(islice(lines, SAMPLE_LINES))
    lines = chain(sample, lines)
    if is_quoted(sample):
        yield from _csv_rows(path, lines, "\t")
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n").split("\t")


def is_quoted(lines: Sequence[str]) -> bool:
    """Whether the fields of a tsv file are quoted as in csv.

    They are if the file is valid csv, of rows of one length, and shows that it is meant so: fields have doubled
    quotation marks in them, or rows are cut by line feeds.

    >>> is_quoted(['1\\t"Stay," he said.\\n']), is_quoted(['1\\t"He said ""stay""."\\n'])
    (False, True)
    """
    plain = [line.rstrip("\r\n").split("\t") for line in lines if line.strip()]
    if not any(field.startswith('"') for row in plain for field in row):
        return False
    csv.field_size_limit(FIELD_LIMIT)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter="\t", strict=True):
            rows.append(row)
    except csv.Error as error:
        if "unexpected end of data" not in str(error):  # that of a sample may be within a row
            return False
    if len({len(row) for row in rows if row}) != 1:
        return False
    doubled = any(field.startswith('"') and '""' in field[1:-1] for row in plain for field in row)
    return doubled or len({len(row) for row in plain}) > 1


def _lines(path: Path, settings: ReadSettings, notes: ReadNotes | None) -> Iterator[str]:
    return (f"{line}\n" for line in read_lines(path, settings.errors, settings.encoding, notes))


def _csv_rows(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(FIELD_LIMIT)  # of the process; Python's 131,072 is too small for articles
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    kind = "tsv" if delimiter == "\t" else "csv"
    start = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "new-line character" in str(error):
                raise BadInput(
                    f"{path}, line {start:,} has a carriage return between its fields; end its rows with line feeds, "
                    "for example with tr '\\r' '\\n'"
                ) from None
            raise BadInput(
                f"{path}, line {start:,} begins a row that is not {kind} ({error}); "
                "quote fields that contain quotation marks, and double the marks"
            ) from None
        if any(field.strip() for field in fields):
            yield start, fields
        start = reader.line_num + 1


def _documents(path: Path, rows: Iterator[Row], settings: ReadSettings, notes: ReadNotes | None) -> Iterator[Document]:
    first = next(rows, None)
    if first is None:
        return
    column, rows = _choose_column(path, first, rows, settings.text_field)
    note_labels(path, first[1], notes)
    for number, fields in rows:
        if column >= len(fields):
            raise BadInput(
                f"{path}, line {number:,} has only {len(fields)} column{'s' * (len(fields) != 1)}, and the text "
                f"is in column {column + 1}; complete or remove the row"
            )
        yield Document(f"{path}:{number}", fields[column])


def _choose_column(path: Path, first: Row, rows: Iterator[Row], name: str) -> tuple[int, Iterator[Row]]:
    """Index of the text column, and the rows below the header; a number is a column of a file without one."""
    header = [field.strip() for field in first[1]]
    if name in header:
        return header.index(name), rows
    if name.isascii() and name.isdecimal() and len(name) < 6 and 1 <= int(name) <= len(header):
        return int(name) - 1, chain([first], rows)
    known = ", ".join(repr(field[:40]) for field in header[:20])
    # A number in the first row is a label where there is no header.
    has_label = label_column(header) is not None or any(field.isdecimal() for field in header)
    raise BadInput(
        f"{path} has no column {name!r}, only {known}; choose one with --data.text_field NAME, or by its number"
        + (f", from 1 to {len(header)}," if len(header) > 1 else ", 1,")
        + " if the first line is not a header"
        + (
            "; or read lines of a source, a tab and a target with --data.pairs"
            if content_suffix(path) == ".tsv"
            else ""
        )
        + ("; or fine-tune a model on its labels with clearstory finetune" if has_label else "")
    )
