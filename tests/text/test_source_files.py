"""Sources: folders, globs and standard input; what is skipped is counted and named."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from clearstory.errors import BadInput, BadSetting, CorruptFile
from clearstory.text import sources
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import DataSettings


def texts(*found: str | Path, notes: ReadNotes | None = None, **settings: object) -> list[str]:
    return [each.text for each in read_documents(found, DataSettings(**settings), notes)]  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with files of many kinds, two of them texts."""
    files = {
        "README.md": b"# Title\n", "notes.txt": b"Notes.\n", "main.py": b"print(1)\n", "lib/core.py": b"x = 2\n",
        "lib/fast.c": b"int x;\n", "paper.pdf": b"%PDF-1.7", "old.pdf": b"%PDF-1.7", "letter.docx": b"PK\x03\x04",
        "page.html": b"<title>t</title><script>no()</script><p>Hello <b>world</b></p><p>Bye</p>",
        "table.csv": b'id,text\n1,"first, with\na line"\n2,second\n', "photo.png": b"\x89PNG\0", "LICENSE": b"Free.\n",
        "cells.ipynb": json.dumps(
            {"cells": [{"cell_type": "raw", "source": ["# One\n", "two"]}, {"cell_type": "code", "source": "x = 1"}]}
        ).encode(),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_files_of_other_kinds_are_counted_with_the_way_to_include_them(project: Path) -> None:
    notes = ReadNotes()
    assert texts(project, notes=notes) == ["# Title\n", "Notes.\n"]
    assert notes.text == (
        "skipped 11 files: 2 .pdf, 1 .docx, 1 .png (not text); 2 .py, 1 .c (include them with --data.include code); "
        "1 without a suffix (include them with --data.include all); 1 .ipynb (include them with --data.include ipynb); "
        "1 .html (include them with --data.include html); 1 .csv (include them with --data.include csv)"
    )
    assert Corpus.open(project).note == notes.text


def test_further_kinds_of_files_are_included(project: Path) -> None:
    pytest.importorskip("lxml", reason="lxml is not installed: pip install 'clearstory[data]'")
    assert texts(project, include=(".py",)) == ["# Title\n", "x = 2\n", "print(1)\n", "Notes.\n"]
    assert texts(project, include=("code,html",)) == [
        "# Title\n", "x = 2\n", "int x;\n", "print(1)\n", "Notes.\n", "Hello world\n\nBye\n",
    ]  # fmt: skip
    assert texts(project, include=("csv", "ipynb")) == [
        "# Title\n", "# One\ntwo\n\nx = 1\n", "Notes.\n", "first, with\na line", "second",
    ]  # fmt: skip
    assert texts(project, include=("py", ".c")) == ["# Title\n", "x = 2\n", "int x;\n", "print(1)\n", "Notes.\n"]
    with pytest.raises(
        BadSetting, match=r"data.include has 'cod', which is not a suffix such as .py; did you mean 'code'"
    ):
        texts(project, include=("cod",))
    notes = ReadNotes()
    everything = texts(project, notes=notes, include=("all",))
    assert len(everything) == 10
    assert "Free.\n" in everything
    assert {path.name for path in notes.unreadable} == {"paper.pdf", "old.pdf", "letter.docx", "photo.png"}


def test_a_bad_file_is_skipped_or_stops(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "japanese.txt").write_bytes("吾輩は猫である。名前はまだ無い。どこで生れたか".encode("shift_jis") * 9)
    (tmp_path / "damaged.txt.gz").write_bytes(gzip.compress(b"x" * 1000)[:-20])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": 7}\n')
    for source in (tmp_path, tmp_path / "*"):
        notes = ReadNotes()
        assert texts(str(source), notes=notes) == ["good"]
        assert notes.text == (
            "skipped 4 files that cannot be read: truncated: its .gz data is incomplete (damaged.txt.gz); empty "
            "(empty.txt); not UTF-8, probably shift_jis: --data.encoding auto reads such files (japanese.txt); 'text' "
            "is int, not text (rows.jsonl)"
        )
    with pytest.raises(CorruptFile, match=r"damaged.txt.gz is truncated"):
        texts(tmp_path, on_error="stop")
    named = [tmp_path / name for name in ("good.txt", "japanese.txt")]
    with pytest.raises(
        BadInput, match=r"japanese.txt is not UTF-8.*; or leave such files out with --data.on_error skip"
    ):
        texts(*named)
    assert texts(*named, on_error="skip") == ["good"]
    corpus = Corpus.open(tmp_path, DataSettings(validation=0.0, cache=tmp_path / "cache"))
    assert [each.text for each in corpus.documents("train")] == ["good"]


def test_a_folder_without_one_readable_file_is_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"caf\xe9 \xff\xfe\x81" * 9)
    with pytest.raises(BadInput, match=r"a.txt is not UTF-8.*; 1 file more cannot be read either"):
        texts(tmp_path)


def test_large_files_are_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearstory.text.documents.HELD", 10)
    lines = [json.dumps({"text": f"number {n}"}) for n in range(50)]
    (tmp_path / "good.jsonl").write_text("\n".join(lines))
    (tmp_path / "late.jsonl").write_text("\n".join([*lines, "{"]))
    notes = ReadNotes()
    assert texts(tmp_path, notes=notes) == [f"number {n}" for n in range(50)]
    assert [path.name for path in notes.unreadable] == ["late.jsonl"]


def test_links_and_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "gone.txt").symlink_to(tmp_path / "nowhere")
    notes = ReadNotes()
    assert texts(tmp_path / "data", notes=notes) == ["a"]
    assert notes.text == "skipped 2 files: 1 broken link, 1 link to a folder (not regular files)"


def test_standard_input_is_read_as_often_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.save_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("one\ntwo\n".encode("utf-16"))))
    corpus = Corpus.open("-", DataSettings(lines=True, validation=0.0))
    assert corpus.name == "standard input"
    assert [each.text for each in corpus.documents("train")] == ["one", "two"]
    assert texts("-") == ["one\ntwo\n"]
    with pytest.raises(BadInput, match="given twice"):
        texts("-", "-")
    sources.save_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"packed"))))
    assert [(each.name, each.text) for each in read_documents("-")] == [("standard input", "packed")]
    sources.save_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(BadInput, match=r"^standard input is empty"):
        texts("-")
    sources.save_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match="standard input is empty"):
        texts("-")
    sources.save_standard_input.cache_clear()
