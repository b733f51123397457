"""Character encodings: recognized, named, guessed for the message, and replaced with a count."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from clearstory.errors import BadInput, BadSetting
from clearstory.text.character_encodings import guess_encoding, wide_encoding
from clearstory.text.corpus import Corpus
from clearstory.text.documents import read_documents
from clearstory.text.files import read_text_parts
from clearstory.text.settings import DataSettings

SAMPLES = {
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n",
    "euc_jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n",
    "gb18030": "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？\n",
    "koi8_r": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n",
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n",
    "cp1252": "“Où est l’été ?” demanda-t-elle — déjà là, répondit-il. Ça coûte 5 €.\n",
    "cp1250": "Zażółć gęślą jaźń. Piękny dzień, źdźbło trawy w ogródku, łąka i żuk.\n",
    "iso8859_7": "Στην αρχή δημιούργησε ο Θεός τον ουρανό και τη γη. Η γη ήταν άμορφη και έρημη.\n",
}

WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def whole(path: Path, errors: str = "strict", encoding: str = "utf-8") -> str:
    return "".join(read_text_parts(path, errors, encoding))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize(
    "text", ["Hello, world\n", "Привет, мир.\nЭто текст.\n", "吾輩は猫である。\n名前は　まだ無い。\n", "🙂 naïve\n"]
)
def test_utf16_and_utf32_are_text_with_or_without_a_byte_order_mark(encoding: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "wide.txt"
    for mark in ("", "\ufeff"):
        file.write_bytes((mark + text * 3).encode(encoding))
        assert whole(file) == text * 3
        assert whole(file, encoding=encoding[:6]) == text * 3
    (tmp_path / "wide.txt.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert whole(tmp_path / "wide.txt.gz") == text * 3


@pytest.mark.parametrize(
    "data", [b"abcd\0efg", b"\x89PNG" + b"a" * 96 + b"\0" * 9, b"hello\0world\n", bytes(range(256)) * 4]
)
def test_binary_data_is_not_taken_for_utf16(data: bytes, tmp_path: Path) -> None:
    assert wide_encoding(data) is None
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(BadInput, match=r"binary|not UTF-8"):
        whole(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", SAMPLES)
def test_the_likely_encoding_is_named_and_can_be_used(encoding: str, tmp_path: Path) -> None:
    text = SAMPLES[encoding] * 20
    file = tmp_path / "old.txt"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(
        BadInput, match=rf"old.txt is not UTF-8: .* it is probably {encoding}: .*--data.encoding {encoding}"
    ):
        list(read_documents(file))
    with pytest.raises(
        BadInput, match=f"it is probably {encoding}: convert it with iconv -f {encoding.replace('_', '-')} -t utf-8"
    ):
        whole(file)  # a command without that setting
    assert whole(file, encoding=encoding) == text
    assert whole(file, encoding="auto") == text
    corpus = Corpus.open(file, DataSettings(encoding="auto"))
    assert corpus.note == f"read 1 file as {encoding} (old.txt), detected from their bytes"


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    file = tmp_path / "old.txt"
    file.write_bytes("naïve café".encode("latin-1"))
    for name in ("latin-1", "ISO-8859-1", "cp1252"):
        assert [each.text for each in read_documents(file, DataSettings(encoding=name))] == ["naïve café"]
    file.write_bytes(codecs.BOM_UTF8 + "naïve".encode())
    assert [each.text for each in read_documents(file, DataSettings(encoding="utf-8"))] == ["naïve"]
    file.write_bytes("日本".encode("shift_jis") + b"\xff")
    with pytest.raises(BadInput, match=r"is not shift_jis: byte 0xff at offset 4 cannot be decoded"):
        list(read_documents(file, DataSettings(encoding="shift_jis")))
    with pytest.raises(
        BadSetting, match=r"data.encoding is 'shif_jis', which is not a text encoding.* did you mean 'shift_jis'"
    ):
        DataSettings(encoding="shif_jis")
    for name in ("zlib", "idna", "no such", "unicode_escape", "raw-unicode-escape"):
        with pytest.raises(BadSetting, match="not a text encoding"):
            DataSettings(encoding=name)


def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "damaged.txt"
    file.write_bytes("naïve café, déjà vu. ".encode() * 9 + b"\xe9t\xe9 " + "élève".encode())
    for encoding in ("utf-8", "auto"):
        with pytest.raises(
            BadInput, match="0xe9 at offset 225 cannot be decoded; convert the file, or replace such bytes"
        ):
            whole(file, encoding=encoding)


def test_auto_reads_utf8_as_utf8(tmp_path: Path) -> None:
    file = tmp_path / "new.txt"
    for data in ("naïve".encode(), codecs.BOM_UTF8 + "naïve".encode(), "naïve".encode("utf-16")):
        file.write_bytes(data)
        assert whole(file, encoding="auto") == "naïve"
    file.write_bytes(b"\x01\x02\xff\xfe\x80" * 9)
    with pytest.raises(BadInput, match="is not UTF-8"):
        whole(file, encoding="auto")
    assert guess_encoding(b"\x01\xff") is None


def test_replaced_characters_are_counted(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(b"caf\xe9, th\xe9 and a real \xef\xbf\xbd here\n" * 3)
    (tmp_path / "good.txt").write_text("fine")
    corpus = Corpus.open(tmp_path, DataSettings(errors="replace"))
    assert corpus.note == "6 invalid characters of old.txt were replaced with U+FFFD, which is part of the text"
    assert [document.text for document in corpus.documents("train")] != []
    assert corpus.note.startswith("6 invalid")  # not counted again by a second reading


@pytest.mark.parametrize(
    ("beginning", "message"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF document, not text; extract its text first"),
        (b"PK\x03\x04 word", r"is a zip archive, as are .docx"),
        (b"\x1f\x8b\x08", r"compressed with gzip, not text; let its name end in .gz"),
        (rb"{\rtf1\ansi Hello", "is an RTF document"),
    ],
)
def test_documents_of_other_formats_are_refused_with_the_way_out(
    beginning: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(beginning * 20)
    with pytest.raises(BadInput, match=message):
        whole(tmp_path / "a.txt", "replace")
