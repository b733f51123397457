"""File contents, decompressed and decoded block by block.

A file is never held in memory whole. Line ends are kept; only a byte order mark at the very start is dropped.
"""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

from clearstory.errors import BadInput, CorruptFile, MissingExtra

Errors = Literal["strict", "replace"]
COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst")
BLOCK = 1 << 19  # bytes per read; a part of a document is then at most about 1 MiB

# Line ends at which GPT-2's regular expression also cuts: before the last white space of a run, or after a run of
# one. Byte-level tokens of the parts are then those of the whole text.
CUT_POINT = re.compile(r"\n(?=\s\S)|(?<=\S)\n(?=\S)")


def content_suffix(path: Path) -> str:
    """The suffix that tells the content type, without the compression suffix."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED_SUFFIXES else path).suffix.lower()


def read_text_parts(path: Path, errors: Errors) -> Iterator[str]:
    """Text of a file in parts of at most about 1 MiB, cut at line ends; joined, they are exactly the text.

    A line longer than a part is cut between two characters. Raises BadInput for bytes that are not UTF-8 (under
    "strict") and for binary files, CorruptFile for truncated or damaged compressed files.
    """
    held = ""
    for text in read_decoded(path, errors):
        held += text
        if len(held) >= BLOCK // 4:  # a block has at least this many characters of at most four bytes
            cut = _last_cut(held)
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def read_lines(path: Path, errors: Errors) -> Iterator[str]:
    """Lines of a file, without line feeds."""
    held: list[str] = []
    for text in read_decoded(path, errors):
        first, *rest = text.split("\n")
        held.append(first)
        if rest:
            yield "".join(held)
            yield from rest[:-1]
            held = [rest[-1]]
    last = "".join(held)
    if last:
        yield last


def read_records(path: Path, errors: Errors) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Objects of a jsonl file, as (line number, location for messages, object); blank lines are skipped.

    Raises BadInput for a line that is not a JSON object.
    """
    for number, line in enumerate(read_lines(path, errors), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number:,}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadInput(f"{location} is not JSON ({error}); jsonl has one object per line") from None
        if not isinstance(record, dict):
            raise BadInput(f"{location} is not a JSON object; each line must be an object with a text field")
        yield number, location, record


def read_decoded(path: Path, errors: Errors) -> Iterator[str]:
    """Decoded blocks of a file, without a byte order mark at the start."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    position = 0
    start = True
    for block in _with_final_block(read_blocks(path)):
        nul = block.find(b"\0")
        if nul >= 0:
            raise BadInput(
                f"{path} is binary, not text: NUL byte at offset {position + nul:,}; give text files (UTF-8)"
            )
        waiting = len(decoder.getstate()[0])  # first bytes of a character that is split between two blocks
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            offset = position - waiting + error.start
            raise BadInput(
                f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset:,} cannot be decoded; "
                f"convert the file, or replace such bytes by U+FFFD with --errors replace"
            ) from None
        position += len(block)
        if start and text:
            text, start = text.removeprefix("\ufeff"), False
        if text:
            yield text


def read_blocks(path: Path) -> Iterator[bytes]:
    """Blocks of bytes of a file, decompressed if its name ends in .gz, .xz or .zst."""
    packing = path.suffix.lower()
    try:
        if packing == ".gz":
            with gzip.open(path, "rb") as file:
                yield from _read(file)
        elif packing == ".xz":
            with lzma.open(path, "rb") as file:
                yield from _read(file)
        else:
            with path.open("rb") as file:
                yield from _unpack_zst(path, file) if packing == ".zst" else _read(file)
    except EOFError:
        raise _truncated_file(path) from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise _damaged_file(path, error) from None
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _read(file: _Readable) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _unpack_zst(path: Path, file: _Readable) -> Iterator[bytes]:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra(f"{path} needs zstandard: pip install 'clearstory[data]'") from None
    # Not stream_reader, which accepts truncated files.
    frame = None
    try:
        while packed := file.read(1 << 14):
            while packed:
                if frame is None:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(packed)
                packed = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise _damaged_file(path, error) from None
    if frame is not None:
        raise _truncated_file(path)


def _with_final_block(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The non-empty blocks, then an empty one: the end, where a character must be complete."""
    yield from filter(None, parts)
    yield b""


def _last_cut(text: str) -> int:
    """Where to cut: the last cut point near the end, else the last line end, else the end."""
    near = max(0, len(text) - (1 << 16))
    seams = [match.end() for match in CUT_POINT.finditer(text, near)]
    return seams[-1] if seams else text.rfind("\n") + 1 or len(text)


def _truncated_file(path: Path) -> CorruptFile:
    return CorruptFile(f"{path} is truncated: its {path.suffix} data is incomplete; download or compress it again")


def _damaged_file(path: Path, error: Exception) -> CorruptFile:
    return CorruptFile(f"{path} is not a valid {path.suffix} file ({error}); download or compress it again")
