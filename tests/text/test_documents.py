"""Documents: from every kind of source, in order; and the messages of every bad input."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from clearstory.errors import BadInput, BadSetting, CorruptFile, MissingExtra, UnknownName
from clearstory.text.corpus import Corpus
from clearstory.text.document import Document
from clearstory.text.documents import read_documents
from clearstory.text.settings import DataSettings


def texts(*sources: str | Path, **settings: object) -> list[str]:
    return [document.text for document in read_documents(sources, DataSettings(**settings))]  # type: ignore[arg-type]


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of several kinds."""
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.md").write_text("z")
    (tmp_path / "a" / "y.rst.gz").write_bytes(gzip.compress(b"y"))
    jsonl(tmp_path / "c.jsonl", {"text": "c1"}, {"text": "c2"})
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "notes.txt").write_text("hidden")
    return tmp_path


def test_a_folder_gives_its_text_files_in_the_order_of_their_paths(folder: Path) -> None:
    assert texts(folder) == ["y", "z", "b", "c1", "c2"]
    assert texts(str(folder)) == texts(folder)


def test_a_glob_gives_the_files_it_matches_in_order(folder: Path) -> None:
    assert texts(str(folder / "**" / "[bz].*")) == ["z", "b"]
    assert texts(str(folder / "[ab]*")) == ["b"]  # a is a folder


def test_sources_come_one_after_the_other(folder: Path) -> None:
    assert texts(folder / "c.jsonl", folder / "b.txt") == ["c1", "c2", "b"]


def test_one_source_needs_no_list(folder: Path) -> None:
    assert [document.text for document in read_documents(str(folder / "b.txt"))] == ["b"]


def test_a_file_that_is_named_is_text_whatever_its_suffix(tmp_path: Path) -> None:
    file = tmp_path / "song.lyrics"
    file.write_text("la la")
    assert list(read_documents([file])) == [Document(str(file), "la la")]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "draft [1].txt"
    file.write_text("text")
    assert texts(file) == ["text"]


def test_jsonl_gives_a_document_per_line(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"body": "one\ntwo"}, {"body": "東京"})
    with file.open("a") as more:
        more.write("\n  \n")
    found = list(read_documents([file], DataSettings(text_field="body")))
    assert found == [Document(f"{file}:1", "one\ntwo"), Document(f"{file}:2", "東京")]


def test_parquet_gives_a_document_per_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'clearstory[data]'")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "東京"], "id": [1, 2]}), file)
    assert list(read_documents([file])) == [Document(f"{file}:1", "one"), Document(f"{file}:2", "東京")]
    with pytest.raises(BadInput, match="no column 'body', only 'text', 'id'"):
        texts(file, text_field="body")
    with pytest.raises(BadInput, match="row 1: 'id' is int, not text"):
        texts(file, text_field="id")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CorruptFile, match="not a parquet file"):
        texts(file)
    packed = tmp_path / "a.parquet.gz"
    packed.write_bytes(b"")
    with pytest.raises(BadInput, match="decompress it first"):
        texts(packed)


def test_a_missing_source_is_reported_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file or folder .*nowhere.txt"):
        next(read_documents([folder / "b.txt", folder / "nowhere.txt"]))


def test_no_sources_are_refused() -> None:
    with pytest.raises(BadInput, match="no text given"):
        texts()


def test_a_glob_without_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file matches"):
        texts(str(tmp_path / "*.txt"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(BadInput, match=r"empty.txt is empty"):
        texts(tmp_path / "empty.txt")
    with pytest.raises(BadInput, match="is empty"):
        texts(tmp_path)


def test_a_folder_without_text_names_the_supported_suffixes(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(
        BadInput, match=r"has no text files; supported: .txt .md .rst .text .jsonl .parquet.*\.gz \.xz \.zst"
    ):
        texts(tmp_path)


def test_a_file_that_is_not_regular_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="not a regular file"):
        texts(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x"}', r"line 2 has no field 'text', only 'body'; choose one with --data.text_field"),
        ('{"text": 5}', "line 2: 'text' is int, not text"),
        ('{"text": "x"', "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"text": "x\\ud83d"}', r"line 2 contains an unpaired surrogate, \\ud83d"),
    ],
)
def test_bad_lines_of_jsonl_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(BadInput, match=message):
        texts(file)


def test_unpaired_surrogates_of_jsonl_can_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x\\ud83d"}\n{"text": "\\ud83d\\ude42"}\n')
    assert texts(file, errors="replace") == ["x\ufffd", "🙂"]
    note = "1 invalid character of a.jsonl were replaced with U+FFFD, which is part of the text"
    assert Corpus.open(file, DataSettings(errors="replace", validation=0.0)).note == note


@pytest.mark.parametrize(("module", "name"), [("zstandard", "a.txt.zst"), ("pyarrow", "a.parquet")])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MissingExtra, match=rf"needs {module}: pip install 'clearstory\[data\]'"):
        texts(tmp_path / name)


def test_an_unknown_corpus_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown corpus 'kjw'; did you mean 'kjv'"):
        texts("corpus:kjw")


@pytest.mark.parametrize("setting", [{"validation": 1.0}, {"validation": -0.1}, {"text_field": ""}])
def test_invalid_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match=f"data.{next(iter(setting))} is"):
        DataSettings(**setting)  # type: ignore[arg-type]


def test_other_values_of_errors_are_refused() -> None:
    settings = DataSettings()
    object.__setattr__(settings, "errors", "ignore")  # around the type checker that runs in tests
    with pytest.raises(BadSetting, match=r"data.errors is 'ignore'; it must be 'strict' or 'replace'"):
        settings.__post_init__()


def test_each_line_is_a_document_and_its_line_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("Ann\r\nBo\n\nÇiğdem\nDee".encode())
    found = list(read_documents(tmp_path / "names.txt", DataSettings(lines=True)))
    assert [each.text for each in found] == ["Ann", "Bo", "", "Çiğdem", "Dee"]
    assert [each.name.rpartition(":")[2] for each in found] == ["1", "2", "3", "4", "5"]
    # Bytes add up to the file: a line's own and its end, which the last line has not.
    assert [each.n_bytes for each in found] == [5, 3, 1, 9, 3]
    assert sum(each.n_bytes for each in found) == (tmp_path / "names.txt").stat().st_size


@pytest.mark.parametrize("block", [4, 7, 1 << 19])
def test_lines_do_not_depend_on_the_parts_of_a_file(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearstory.text.files.BLOCK", block)
    lines = [f"line number {n} is é" for n in range(40)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert texts(tmp_path, lines=True) == lines * 2


def test_lines_of_every_kind_of_file_are_documents(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"text": "one\ntwo"}, {"text": "three"})
    (tmp_path / "b.csv").write_text('text\n"four\nfive"\n')
    assert texts(tmp_path / "a.jsonl", tmp_path / "b.csv", lines=True) == ["one", "two", "three", "four", "five"]
    with pytest.raises(BadSetting, match=r"data.lines makes each line a document, and data.pairs reads pairs"):
        DataSettings(lines=True, pairs=True)


def test_odd_values_of_jsonl_are_sentences_or_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    deep = "[" * 5000 + "]" * 5000
    file.write_text('{"text": "fine", "id": ' + "7" * 5000 + "}\n")  # an integer that Python refuses to convert
    assert texts(file) == ["fine"]
    for line, message in (
        (f'{{"text": {deep}}}', "line 1 is nested too deeply|'text' is list, not text"),
        (deep.replace("[", '{"a":', 5000), "line 1 is not JSON|nested too deeply"),
        ('{"text": ' + "7" * 5000 + "}", "'text' is float, not text"),
        ('{"text": ["a", {"b": 1}]}', "'text' is list, not text"),
        ('{"text": null}', "'text' is NoneType, not text"),
        ("7" * 5000, "line 1 is not a JSON object"),
        ("NaN", "line 1 is not a JSON object"),
        ("\ufeff{", "line 1 is not JSON"),
    ):
        file.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(BadInput, match=message):
            texts(file)


def test_damaged_text_of_parquet_is_a_sentence(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'clearstory[data]'")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["a text that is long enough to find"] * 3}), file, compression="none")
    data = file.read_bytes()
    at = data.index(b"long enough")
    file.write_bytes(data[:at] + b"\xff\xfe" + data[at + 2 :])
    with pytest.raises(CorruptFile, match="has text that is not UTF-8 after row 0"):
        texts(file)
    refused = 0
    for offset in range(0, len(data), 7):  # any other damage too
        file.write_bytes(data[:offset] + bytes([data[offset] ^ 0x15]) + data[offset + 1 :])
        try:
            texts(file)
        except (BadInput, CorruptFile):
            refused += 1
    assert refused > 10
