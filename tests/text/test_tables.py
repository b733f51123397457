"""Tables: the text column of csv and tsv files, quoted or not, with a header or not."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.text import tables
from clearstory.text.documents import read_documents
from clearstory.text.settings import DataSettings

TEXTS = ['He said, "No."', "two\nlines, both here", "plain", "", "ends with a tab\t.", "naïve – 東京"]


def texts(path: Path, **settings: object) -> list[str]:
    return [each.text for each in read_documents(path, DataSettings(**settings))]  # type: ignore[arg-type]


@pytest.mark.parametrize(("suffix", "dialect"), [(".csv", "excel"), (".csv", "unix"), (".tsv", "excel-tab")])
@pytest.mark.parametrize("packed", [False, True])
def test_the_text_column_is_read_as_it_was_written(suffix: str, dialect: str, packed: bool, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, dialect)
        writer.writerows([("id", "text", "label"), *((n, text, n % 2) for n, text in enumerate(TEXTS))])
    if packed:
        (tmp_path / f"table{suffix}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file = tmp_path / f"table{suffix}.gz"
    assert texts(file) == TEXTS
    assert texts(file, text_field="label") == ["0", "1"] * 3
    assert texts(file, text_field="2") == ["text", *TEXTS]  # a column by its number: the first line is no header
    with pytest.raises(BadInput, match=r"has no column 'body', only 'id', 'text', 'label'; .* from 1 to 3"):
        texts(file, text_field="body")


def test_semicolons_may_separate_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id;"text"\n1;"one; two"\n2;three, four\n')
    assert texts(file) == ["one; two", "three, four"]
    file.write_text("text\none; two\n")
    assert texts(file) == ["one; two"]
    with pytest.raises(BadInput, match="has no column '9999"):
        texts(file, text_field="9" * 5000)


def test_quotation_marks_of_tsv_are_text_unless_all_fields_show_that_they_are_quotes(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('text\tlabel\n"Stay," he said.\t1\n"To be\t0\nnot to be"\t1\n', encoding="utf-8")
    assert texts(file) == ['"Stay," he said.', '"To be', 'not to be"']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,id\n"never closed,1\nmore\n', r"line 2 begins a row that is not csv"),
        ('text,id\n"closed" then more,1\n', r"line 2 begins a row that is not csv"),
        ("id,text\n1,a\n\n2\n", r"line 4 has only 1 column, and the text is in column 2; complete or remove"),
        ("a\rb\rc", "line 1 has a carriage return between its fields; end its rows with line feeds"),
    ],
)
def test_bad_rows_are_located(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    with pytest.raises(BadInput, match=message):
        texts(tmp_path / "a.csv")


def test_the_size_of_a_field_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FIELD_LIMIT", 1000)
    (tmp_path / "a.csv").write_text("text\n" + "x" * 999 + "\n")
    assert texts(tmp_path / "a.csv") == ["x" * 999]
    (tmp_path / "a.csv").write_text("text\n" + "x" * 1001 + "\n")
    with pytest.raises(BadInput, match="field larger than field limit"):
        texts(tmp_path / "a.csv")
    monkeypatch.undo()
    (tmp_path / "a.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(texts(tmp_path / "a.csv")[0]) == 200_000  # more than the limit of Python's csv


@pytest.mark.parametrize(
    ("content", "field", "wanted"),
    [
        ("id\ttext\n1\tHello, there\n", "text", ["Hello, there"]),
        ("1;Hello, world\n2;Good bye\n", "2", ["Hello, world", "Good bye"]),
        ("1,a;b\n2,c;d\n", "2", ["a;b", "c;d"]),
    ],
)
def test_the_separator_of_columns_is_found(content: str, field: str, wanted: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert texts(tmp_path / "a.csv", text_field=field) == wanted
