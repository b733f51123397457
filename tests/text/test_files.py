"""Files: decompressed, decoded and cut into parts without loss."""

from __future__ import annotations

import codecs
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.errors import BadInput, CorruptFile
from clearstory.text import files
from clearstory.text.files import read_lines, read_text_parts
from clearstory.text.train_tokenizer import train_tokenizer

calm = settings(deadline=None)  # busy machines are slow, not wrong

POEM = "Die Zeit – sie flieht.\r\n\n  東京 は 🙂\tnaïve\n" * 50


def zst(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed: pip install 'clearstory[data]'")
    return zstandard.ZstdCompressor(level=1).compress(data)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zst}


def whole(path: Path, errors: files.Errors = "strict") -> str:
    return "".join(read_text_parts(path, errors))


def test_a_text_is_read_exactly(tmp_path: Path) -> None:
    file = tmp_path / "poem.txt"
    file.write_bytes(POEM.encode())
    assert whole(file) == POEM


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_compressed_text_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"poem.txt{suffix}"
    file.write_bytes(COMPRESSORS[suffix](POEM.encode()))
    assert whole(file) == POEM


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_concatenated_compressed_files_are_one_text(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"poem.txt{suffix}"
    file.write_bytes(COMPRESSORS[suffix](b"one ") + COMPRESSORS[suffix](b"two"))
    assert whole(file) == "one two"


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_a_truncated_compressed_text_is_corrupt(tmp_path: Path, suffix: str, keep: float) -> None:
    file = tmp_path / f"poem.txt{suffix}"
    data = COMPRESSORS[suffix](POEM.encode())
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CorruptFile, match="is truncated"):
        whole(file)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_text_with_the_suffix_of_a_compressed_file_is_corrupt(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"poem.txt{suffix}"
    file.write_bytes(b"not compressed at all")
    with pytest.raises(CorruptFile, match=f"not a valid {suffix} file"):
        whole(file)


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    file = tmp_path / "marked.txt"
    file.write_bytes(codecs.BOM_UTF8 + "a\ufeffb".encode())
    assert whole(file) == "a\ufeffb"


@calm
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400),
    block=st.integers(4, 60),
)
def test_parts_joined_are_exactly_the_text(tmp_path_factory: pytest.TempPathFactory, text: str, block: int) -> None:
    file = tmp_path_factory.getbasetemp() / "parts.txt"
    text = text.removeprefix("\ufeff")
    file.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        parts = list(read_text_parts(file, "strict"))
        assert "\n".join(read_lines(file, "strict")) == text.removesuffix("\n")
    assert "".join(parts) == text
    assert all(parts)


@calm
@given(
    words=st.lists(st.sampled_from(["a", "word", "\n", "\n\n", " ", "  ", "\t", "\n \n", "1", ",", "é"]), max_size=80)
)
def test_parts_have_the_tokens_of_the_whole_text_at_a_cut_point(words: list[str]) -> None:
    text = "".join(words)
    tokenizer = BPE
    for cut in files.CUT_POINT.finditer(text):
        first, second = text[: cut.end()], text[cut.end() :]
        assert tokenizer.encode(first) + tokenizer.encode(second) == tokenizer.encode(text)


BPE = train_tokenizer("bpe:400", ["a word and a word\n\n  a word\n1 ,\t" * 20])


def test_long_files_come_in_parts_of_about_a_mebibyte_cut_at_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    text = "All the world's a stage,\nAnd all the men and women merely players;\n\n" * 40_000
    file.write_text(text, newline="")
    parts = list(read_text_parts(file, "strict"))
    assert len(parts) > 2
    assert max(map(len, parts)) <= 1 << 20
    assert all(part.endswith("\n") for part in parts)
    assert "".join(parts) == text


def test_a_line_longer_than_a_part_is_cut_between_characters(tmp_path: Path) -> None:
    file = tmp_path / "line.txt"
    file.write_text("あ" * 600_000, encoding="utf-8")
    parts = list(read_text_parts(file, "strict"))
    assert len(parts) > 1
    assert "".join(parts) == "あ" * 600_000


@pytest.mark.parametrize(
    ("before", "message"), [(b"abc", "0xff at offset 3"), (b"x" * 600_000 + b"\xe3\x81", "0xe3 at offset 600,000")]
)
def test_bytes_that_are_not_utf8_are_reported_with_their_offset(tmp_path: Path, before: bytes, message: str) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes(before + b"\xff def")
    with pytest.raises(BadInput, match=f"{message}.*--errors replace"):
        whole(file)
    assert whole(file, "replace") == (before + b"\xff def").decode(errors="replace")


def test_the_offset_counts_decompressed_bytes_and_the_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt.gz"
    file.write_bytes(gzip.compress(codecs.BOM_UTF8 + b"abc\xff"))
    with pytest.raises(BadInput, match="0xff at offset 6"):
        whole(file)


def test_a_truncated_character_at_the_end_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "cut.txt"
    file.write_bytes("naï".encode()[:-1])
    with pytest.raises(BadInput, match="0xc3 at offset 2"):
        whole(file)
    assert whole(file, "replace") == "na\ufffd"


def test_binary_files_are_refused_with_the_offset(tmp_path: Path) -> None:
    file = tmp_path / "program.txt"
    file.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(BadInput, match=r"binary.* NUL byte at offset 4"):
        whole(file, "replace")


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        whole(tmp_path)
